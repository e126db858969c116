"""What a bucket's library raises, as an error that a person can act on. No query, password or secret gets through."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping

from erg_server.errors import (
    ErgError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)

_DEBUG = re.compile(r"\s*Debug source:.*", re.DOTALL)
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
_STATUS = re.compile(r"status code: (\d{3})")
_USER = re.compile(r"(://)[^/@\s]*@")
_QUERY = re.compile(r"\?\S*")
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|ACCOUNT_KEY|SAS", re.IGNORECASE)
_METADATA_ADDRESSES = ("169.254.169.254", "metadata.google.internal")
_LONGEST = 400
_SHORTEST_SECRET = 6
_FULL = (errno.ENOSPC, errno.EDQUOT)


def storage_error(error: BaseException, where: str, environment: Mapping[str, str] = os.environ) -> ErgError:
    """The error to tell of what failed at `where`, a location or an object of one."""
    if isinstance(error, ErgError):
        return error
    text = _DEBUG.sub("", str(error))
    code, status = _CODE.search(text), _STATUS.search(text)
    told = redact(_told(error, text, code), environment)
    name = type(error).__name__
    number = int(status.group(1)) if status else 0
    if any(address in text for address in _METADATA_ADDRESSES):
        kind: type[ErgError] = FailedPreconditionError
        told = (
            "there are no credentials in the environment; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a web "
            f"identity, or AWS_SKIP_SIGNATURE=true for a public bucket ({told})"
        )
    elif number in {401, 403} or name in {"PermissionDeniedError", "UnauthenticatedError"}:
        kind, told = FailedPreconditionError, f"access is refused: {told}; check the credentials in the environment"
    elif name == "PreconditionError" or number == 412:
        kind, told = UnavailableError, "changed while it was read; it is read again at the next look"
    elif isinstance(error, FileNotFoundError) or number == 404:
        kind, told = NotFoundError, f"is not there: {told}"
    elif name == "InvalidPathError" or isinstance(error, ValueError):
        kind = InvalidArgumentError
    else:
        kind = UnavailableError
    return kind(f"{where}: {told}")


def disk_error(error: OSError, what: str) -> ErgError:
    """The error to tell of a disk that did not take `what`."""
    if error.errno in _FULL:
        return ResourceExhaustedError(f"{what}: the disk is full ({error.strerror}); what is served serves on")
    return FailedPreconditionError(f"{what}: {error.strerror or error} ({error.filename or 'no file'})")


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text without users, queries, and values of variables that hold secrets; cut to a length for a log line."""
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    text = _QUERY.sub("", _USER.sub(r"\1", text))
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _told(error: BaseException, text: str, code: re.Match[str] | None) -> str:
    if code is not None:
        message = _MESSAGE.search(text)
        return code.group(1) + (f": {message.group(1)}" if message else "")
    return text or type(error).__name__
