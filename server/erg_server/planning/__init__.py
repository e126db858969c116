"""What a load would do to a repository on given devices, told before anything is started, and what would help."""
