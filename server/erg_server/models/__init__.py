"""Which models and versions are served, and how one comes and goes without losing a request."""
