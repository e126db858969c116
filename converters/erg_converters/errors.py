"""What a conversion may stop with; each says the cause and the fix."""

from __future__ import annotations

from erg_server.errors import ErgError, StatusCode


class ConversionError(ErgError):
    """A conversion cannot go on; nothing was published."""

    code = StatusCode.FAILED_PRECONDITION


class RecipeError(ConversionError):
    """The recipe is wrong; the message names file, line and key."""

    code = StatusCode.INVALID_ARGUMENT


class ParityError(ConversionError):
    """The converted model does not compute what its source computes."""


class PassError(ConversionError):
    """A pass cannot do its work, or does not fit where it was put."""


class PromiseError(PassError):
    """A pass wrote something other than what every pass promises."""
