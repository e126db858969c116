"""A client of the Open Inference Protocol that asks a server for real answers and checks them."""
