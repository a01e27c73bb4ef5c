"""Errors of disks and networks: which may pass when tried again, and which no slide can be blamed for."""

import errno
import os
from collections.abc import Iterator

_MAY_PASS = frozenset(
    getattr(errno, name)
    for name in (
        "EIO", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ENOTCONN", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETUNREACH",
        "ENETDOWN", "EAGAIN", "EINTR",
    )
    if hasattr(errno, name)
)  # fmt: skip
_FULL = frozenset(getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name))


def may_pass(error: BaseException) -> bool:
    """Whether an exception comes from a disk or a network that may answer when asked again."""
    return any(cause.errno in _MAY_PASS for cause in _system_errors(error))


def is_full(error: BaseException) -> bool:
    """Whether an exception comes from a disk without room, or a quota that is used up."""
    return any(cause.errno in _FULL for cause in _system_errors(error))


def from_text(text: str) -> OSError | None:
    """The error that may pass which a library's message quotes in the system's words, if any."""
    return next((OSError(code, os.strerror(code)) for code in sorted(_MAY_PASS) if os.strerror(code) in text), None)


def _system_errors(error: BaseException | None) -> Iterator[OSError]:
    """An exception and what it came from, those of the operating system."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError):
            yield error
        error = error.__cause__ or error.__context__
