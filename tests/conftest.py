"""Settings for every test."""

from hypothesis import settings

# Tests share two cores with whatever else runs: how long an example takes says nothing.
settings.register_profile("erg", deadline=None)
settings.load_profile("erg")
