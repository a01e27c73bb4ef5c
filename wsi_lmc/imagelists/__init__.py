"""Which images are packed, from folders or a table to groups of one site, and the list of them that a run keeps.

Nothing is guessed: a label, a site or a group that nobody states is empty, and an image without a group is a group of
its own. What a person should know of that comes back as notes.
"""

from wsi_lmc.imagelists.checking import hash_images, remarks, without_repeats
from wsi_lmc.imagelists.entry import ImageEntry
from wsi_lmc.imagelists.finding import COLUMNS, IMAGE_SUFFIXES, ImageInputs, find_images, parse_columns
from wsi_lmc.imagelists.groups import (
    ImageGroup,
    are_at_hand,
    group_images,
    groups_of,
    is_list,
    list_path,
    read_list,
    write_list,
)

__all__ = [
    "COLUMNS",
    "IMAGE_SUFFIXES",
    "ImageEntry",
    "ImageGroup",
    "ImageInputs",
    "are_at_hand",
    "find_images",
    "group_images",
    "groups_of",
    "hash_images",
    "is_list",
    "list_path",
    "parse_columns",
    "read_list",
    "remarks",
    "without_repeats",
    "write_list",
]
