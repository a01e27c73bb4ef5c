"""Every code has a meaning, and the document says the same."""

import re
from pathlib import Path
from typing import get_args

from wsi_lmc.codes import MEANINGS
from wsi_lmc.errors import SlideCode

_DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "codes.md"


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(get_args(SlideCode))


def test_the_document_says_the_same() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", _DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert {code: (found, remedy) for code, found, remedy in rows} == {
        code: (meaning.found, meaning.remedy) for code, meaning in MEANINGS.items()
    }
