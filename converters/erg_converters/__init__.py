"""Erg's converters: from a trained model to a version in a model repository, proved against its source."""
