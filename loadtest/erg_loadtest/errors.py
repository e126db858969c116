"""What can be wrong with a load test itself; a request's own failure is a figure, never an exception."""

from __future__ import annotations


class LoadTestError(Exception):
    """The test cannot run, or cannot go on; the message says what to change."""


class PlanError(LoadTestError):
    """The plan asks for something impossible: a rate of zero, an input that the model has not, no end."""


class ServerError(LoadTestError):
    """The server did not answer a question the test cannot do without."""
