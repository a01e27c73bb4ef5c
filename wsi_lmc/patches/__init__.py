"""Tile stores of images that are tiles already, such as published patch data sets: no slide, grid or tissue mask."""

from wsi_lmc.patches.config import PackConfig
from wsi_lmc.patches.cutting import cut_image, split_image
from wsi_lmc.patches.images import Picture, decode_image, load_image, read_image
from wsi_lmc.patches.storing import Patch, image_numbers, pack_identity, write_patches, write_store

__all__ = [
    "PackConfig",
    "Patch",
    "Picture",
    "cut_image",
    "decode_image",
    "image_numbers",
    "load_image",
    "pack_identity",
    "read_image",
    "split_image",
    "write_patches",
    "write_store",
]
