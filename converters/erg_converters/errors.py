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


class SourceError(ConversionError):
    """The trained model cannot be loaded, or is not what it is said to be."""


class TrustError(SourceError):
    """Going on would run code out of a file, which takes an explicit `--trust`."""

    code = StatusCode.PERMISSION_DENIED


class DataError(ConversionError):
    """Samples are missing, or are not what the model takes; the message names the sample."""

    code = StatusCode.INVALID_ARGUMENT
