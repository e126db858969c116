"""What every RPC means, free of transport."""
