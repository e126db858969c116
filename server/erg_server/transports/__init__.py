"""How requests come in and answers go out; nothing below knows of it."""
