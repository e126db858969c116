"""Queues, batches and where they run: what decides is pure, and time is passed in."""
