"""Stain normalisers to compare with: each turns tiles of any site into tiles that look like one reference.

LMC needs none of them: they are what is done today, behind one interface, so that a comparison is one flag.
"""

from wsi_lmc.normalisers.choose import Normaliser, NormaliserName, load_normaliser, normaliser_fingerprint

__all__ = ["Normaliser", "NormaliserName", "load_normaliser", "normaliser_fingerprint"]
