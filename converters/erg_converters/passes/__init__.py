"""What is done to a model on its way, one algorithm a file."""
