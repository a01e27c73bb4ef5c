"""What published data sets say of their images: lesion outlines, mitotic figures, grades, as labels of tiles.

Readers of the formats as they are downloaded, and the geometry that turns outlines, masks and points into one label a
tile. All positions are level-0 pixels of the image they belong to, x to the right, y down.
"""

from wsi_lmc.annotations.areas import inside_shares, mask_shares
from wsi_lmc.annotations.asap import CAMELYON_GROUPS, Groups, read_asap
from wsi_lmc.annotations.camelyon import (
    RADBOUD,
    UTRECHT,
    PathoRobPatch,
    SlideReference,
    camelyon16_site,
    read_pathorob,
    read_reference,
    read_stages,
)
from wsi_lmc.annotations.files import read_limited
from wsi_lmc.annotations.gleason import CODINGS, Coding, grade_labels, read_grades, read_sicap_partition
from wsi_lmc.annotations.midog import (
    HARD_NEGATIVE,
    MIDOG2021_SCANNERS,
    MITOTIC_FIGURE,
    AnnotatedImage,
    midog2021_scanner,
    read_midog,
    read_midogpp_slides,
)
from wsi_lmc.annotations.ncrf import read_ncrf, read_ncrf_centres
from wsi_lmc.annotations.regions import Annotation, Region
from wsi_lmc.annotations.tiles import NORMAL, TUMOUR, ShareLimits, centred_on, lesion_labels

__all__ = [
    "CAMELYON_GROUPS",
    "CODINGS",
    "HARD_NEGATIVE",
    "MIDOG2021_SCANNERS",
    "MITOTIC_FIGURE",
    "NORMAL",
    "RADBOUD",
    "TUMOUR",
    "UTRECHT",
    "AnnotatedImage",
    "Annotation",
    "Coding",
    "Groups",
    "PathoRobPatch",
    "Region",
    "ShareLimits",
    "SlideReference",
    "camelyon16_site",
    "centred_on",
    "grade_labels",
    "inside_shares",
    "lesion_labels",
    "mask_shares",
    "midog2021_scanner",
    "read_asap",
    "read_grades",
    "read_limited",
    "read_midog",
    "read_midogpp_slides",
    "read_ncrf",
    "read_ncrf_centres",
    "read_pathorob",
    "read_reference",
    "read_sicap_partition",
    "read_stages",
]
