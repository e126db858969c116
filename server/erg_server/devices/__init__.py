"""The devices of this machine and what they draw."""
