"""What each code of a failed slide means and what to do about it: the one place that says so.

The table of ``docs/codes.md`` and the report have their texts from here; a backquoted word is a flag or a command.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from wsi_lmc.errors import SlideCode


@dataclass(frozen=True)
class Meaning:
    """Of a code: what was found, and what to do."""

    found: str
    remedy: str


MEANINGS: Mapping[SlideCode, Meaning] = MappingProxyType(
    {
        "missing": Meaning("no file there, or no permission to see it", "check the path, the permissions, the mount"),
        "empty_file": Meaning("a file of 0 bytes", "copy the slide again"),
        "folder": Meaning("a folder with the name of a slide", "name the files in it"),
        "not_a_file": Meaning("a pipe, a device, a socket", "give the file itself"),
        "not_a_slide": Meaning("no format that OpenSlide or tiffslide know", "leave it out, or convert it"),
        "truncated": Meaning(
            "a TIFF that ends before its own directories say it does", "copy it again, and compare checksums"
        ),
        "damaged": Meaning(
            "a file that contradicts itself: directories in a circle, levels of different shapes", "copy it again"
        ),
        "unsupported": Meaning(
            "a format, a compression or a kind of pixel (grey, 16-bit) that is not read",
            "convert it to a tiled RGB pyramid",
        ),
        "not_an_image": Meaning("a picture of a data set of tiles that cannot be decoded", "leave it out"),
        "duplicate_name": Meaning(
            "several slides would have one id (also by case or Unicode form alone)", "rename, or give ids in a manifest"
        ),
        "mpp_missing": Meaning("the file states no pixel size", "`--mpp`, or a manifest's column `mpp`"),
        "mpp_invalid": Meaning(
            "a pixel size that cannot be: 0, negative, not a number, outside 0.05 to 10 µm",
            "correct it, or give it as above",
        ),
        "mpp_conflict": Meaning("statements of the file that disagree", "find out which is right, and give it"),
        "mpp_mismatch": Meaning(
            "tiles of another scale than the encoder was trained at", "tile at its scale, or allow it on purpose"
        ),
        "too_coarse": Meaning("the slide has fewer details than the tiles asked for", "ask for a larger `--tile-mpp`"),
        "too_small": Meaning(
            "an image of a data set of tiles that is smaller than a tile",
            "ask for a smaller `--tile-px`, pass `--fit --enlarge`, or leave it out",
        ),
        "too_large": Meaning(
            "more tiles, pixels or bytes a native tile than the limits allow: a bomb, or a mistake",
            "raise `--max-tiles` or `--max-gigapixels`, if it is meant",
        ),
        "unreadable_tiles": Meaning(
            "more than 5 % of the tiles cannot be decoded; fewer are marked in the store", "copy the slide again"
        ),
        "bad_mask": Meaning("an outline that is missing, or no GeoJSON of polygons", "export it from QuPath again"),
        "slide_changed": Meaning("results of another version of this slide", "`--overwrite`, or another output"),
        "other_configuration": Meaning("results of other settings", "`--overwrite`, or another output"),
        "store": Meaning("a tile store that is missing or damaged", "`wsi-lmc verify --repair`"),
        "environment": Meaning(
            "something the stage needs has changed under it: a checkpoint, a device", "restore it, run again"
        ),
        "io": Meaning("the disk or the network failed three times in a row", "see to it, then `wsi-lmc retry-failed`"),
        "disk_full": Meaning(
            "no room; stops the run, and is recorded for no slide", "make room, run the same command again"
        ),
        "out_of_memory": Meaning("the slide wanted more memory than its worker has", "fewer `--workers`"),
        "timed_out": Meaning(
            "longer than `--slide-timeout`; its worker was ended", "see whether the file can be read; allow more"
        ),
        "worker_died": Meaning(
            "its process died, alone, at the third try: killed for memory, or a crash in a codec",
            "fewer `--workers`, or leave it out",
        ),
        "internal": Meaning("a bug of ours; the traceback is in `logs/`", "report it"),
    }
)
