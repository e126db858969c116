"""What energy went where: sources that count joules, and a ledger that splits them without losing any."""
