"""The exception tree, with the exit code and the stable reason code of each branch.

WsiLmcError
├── UsageError          exit 2   a wrong flag, path or configuration: nothing was started
├── SlideError          exit 1   one slide cannot be processed; the others go on
├── StoreError          exit 1   a store on disk is missing, damaged or of another schema
└── TrainingError       exit 1   training had to stop (non-finite loss, nothing to train on)

Every message says what was found, what was expected and what to do about it.
"""

import re
from typing import Literal

SlideCode = Literal[
    "missing",
    "empty_file",
    "folder",
    "not_a_file",
    "not_a_slide",
    "duplicate_name",
    "truncated",
    "damaged",
    "unsupported",
    "not_an_image",
    "mpp_missing",
    "mpp_invalid",
    "mpp_conflict",
    "mpp_mismatch",
    "too_coarse",
    "too_small",
    "too_large",
    "unreadable_tiles",
    "bad_mask",
    "slide_changed",
    "other_configuration",
    "store",
    "environment",
    "io",
    "disk_full",
    "out_of_memory",
    "timed_out",
    "worker_died",
    "internal",
]


class WsiLmcError(Exception):
    """Anything this package refuses to do, with the reason a user can act on."""

    exit_code = 1

    def __init__(self, found: str, expected: str, remedy: str) -> None:
        super().__init__(found, expected, remedy)
        self.found = found
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        """One line: found; expected; what to do."""
        return f"{self.found}; expected {self.expected}. {self.remedy}"


class UsageError(WsiLmcError):
    """A wrong flag, path, configuration or environment; raised before any work starts."""

    exit_code = 2


class SlideError(WsiLmcError):
    """One slide cannot be processed. ``code`` is stable and documented; the other slides go on."""

    def __init__(self, code: SlideCode, found: str, expected: str, remedy: str) -> None:
        super().__init__(found, expected, remedy)
        self.args = (code, found, expected, remedy)  # exceptions travel between processes as their args
        self.code: SlideCode = code


class StoreError(WsiLmcError):
    """A store on disk is missing, damaged, or of a schema this version does not read."""


class TrainingError(WsiLmcError):
    """Training cannot start or had to stop."""


def without_quotes(text: str) -> str:
    """What a library says, without what it quotes: that may come from a patient's file, and name somebody.

    >>> without_quotes("invalid tag 'DOE^JANE' at 12")
    "invalid tag '...' at 12"
    """
    return _QUOTED.sub("'...'", text)


_QUOTED = re.compile(r"b?'[^'\n]*'|b?\"[^\"\n]*\"")
