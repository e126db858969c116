"""gRPC by grpcio, the C core: the reference transport."""
