"""Settings for every test."""

from hypothesis import settings

# Tests share two cores with whatever else runs: how long an example takes says nothing. `make test` draws the same
# examples for the same code, so that it fails for a change and not for a draw; `pytest --hypothesis-profile=explore`
# draws new ones.
settings.register_profile("erg", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("erg")
