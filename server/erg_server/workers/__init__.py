"""Worker processes: each owns one device and runs one batch at a time."""
