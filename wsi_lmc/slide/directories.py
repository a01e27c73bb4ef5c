"""Walk a TIFF's chain of directories before any library does: they hang in circles, or drop what lies beyond the end.

Only the chain is looked at, a few bytes a directory; what stands in the directories is for tifffile.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from wsi_lmc.errors import SlideError

COPY_AGAIN = "Copy the slide again from its source and compare checksums."
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST = 65_536  # directories; focal planes and channels make hundreds


@dataclass(frozen=True)
class _Form:
    """How numbers are written: where the first offset stands, formats of an offset and a count, bytes of an entry."""

    first: int
    offset: str
    count: str
    entry: int


def check_directories(path: Path, size: int) -> None:
    """Refuse a TIFF of ``size`` bytes whose directories do not form a chain that ends inside it.

    Raises:
        SlideError: ``truncated`` where one would lie beyond the end, ``damaged`` where there is none or no end of them.
        OSError: the file cannot be read.
    """
    seen: set[int] = set()
    with path.open("rb") as file:

        def number(kind: str, at: int) -> int:
            file.seek(at)
            data = file.read(struct.calcsize(kind))
            if len(data) < struct.calcsize(kind):
                raise _beyond(path, len(seen) + 1, at, size)
            return struct.unpack(kind, data)[0]

        form = _form(file.read(8), path.suffix.lower() == ".ndpi" and size > 1 << 32)
        at = number(form.offset, form.first)
        while at:
            if at in seen or len(seen) == _MOST:
                raise SlideError(
                    "damaged", f"the directories of {path.name} go round in circles", "a list with an end", COPY_AGAIN
                )
            if at >= size:
                raise _beyond(path, len(seen) + 1, at, size)
            entries = number(form.count, at)
            following = number(form.offset, at + struct.calcsize(form.count) + entries * form.entry)
            seen.add(at)
            at = following
    if not seen:
        raise SlideError("damaged", f"{path.name} is a TIFF without a directory", "a whole TIFF", COPY_AGAIN)


def _form(head: bytes, wide: bool) -> _Form:
    """The form of a TIFF that begins with ``head``; ``wide``: an NDPI of over 4 GB, whose offsets have 8 bytes."""
    order = "<" if head[:2] == b"II" else ">"
    if head[2:4] in (b"+\0", b"\0+"):
        return _Form(8, f"{order}Q", f"{order}Q", 20)
    return _Form(4, f"{order}Q" if wide else f"{order}I", f"{order}H", 12)


def _beyond(path: Path, number: int, at: int, size: int) -> SlideError:
    return SlideError(
        "truncated", f"{path.name} ends at byte {size}", f"its directory {number} at byte {at}", COPY_AGAIN
    )
