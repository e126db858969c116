"""Where trained models come from."""
