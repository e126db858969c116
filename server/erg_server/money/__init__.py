"""What devices' time and energy cost: a price file, and the arithmetic that applies it without losing anything."""
