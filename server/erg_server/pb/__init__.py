"""Generated protobuf messages (scripts/protos.py writes them) and the descriptor pool they live in."""
