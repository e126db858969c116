"""A virtual clock that runs the real scheduler: for tests, for benchmarks and to plan before anything is started."""
