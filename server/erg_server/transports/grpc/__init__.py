"""gRPC over HTTP/2 in plain Python: state machines over bytes, and a thin asyncio shell around them."""
