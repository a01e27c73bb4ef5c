"""Errors that may pass are told from those that stay, through whatever they were wrapped in."""

import errno
import os

import pytest

from wsi_lmc.errors import SlideError
from wsi_lmc.passing import from_text, is_full, may_pass


def _wrapped(error: OSError) -> Exception:
    try:
        try:
            raise error
        except OSError as cause:
            raise ValueError("in a library") from cause
    except ValueError as again:
        wrapped = SlideError("damaged", "a", "b", "c")
        wrapped.__cause__ = again
        return wrapped


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_what_a_share_says_that_is_away_may_pass(code: int) -> None:
    error = OSError(code, os.strerror(code))
    assert may_pass(error)
    assert may_pass(_wrapped(error))
    assert not is_full(error)
    said = from_text(f"Cannot read slide: {os.strerror(code)}")
    assert said is not None
    assert said.errno == code


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EINVAL])
def test_what_is_missing_or_forbidden_stays(code: int) -> None:
    assert not may_pass(_wrapped(OSError(code, os.strerror(code))))
    assert from_text(os.strerror(code)) is None


def test_a_full_disk_and_a_used_quota_are_full() -> None:
    assert is_full(_wrapped(OSError(errno.ENOSPC, "x")))
    assert is_full(OSError(errno.EDQUOT, "x"))
    assert not is_full(ValueError("x"))


def test_exceptions_in_a_circle_end() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert not may_pass(one)
