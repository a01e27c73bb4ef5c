"""Small synthetic downloads of all three data sets, in their real layouts and formats: to try the pipelines out.

``python -m pipelines.smoke FOLDER`` writes FOLDER/camelyon16, FOLDER/midog and FOLDER/gleason. What takes the place of
tumour is a texture of synthetic tissue, so scores say nothing about tissue.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
from jaxtyping import UInt8

from wsi_lmc.annotations import MITOTIC_FIGURE
from wsi_lmc.contours import mask_to_polygons
from wsi_lmc.synthetic import CLASSES, NORTH, SOUTH, Drawing, Site, SlideSpec, draw, expose, stain_slide
from wsi_lmc.synthetic.writing import write_tiff

_GLANDULAR, _DIFFUSE = range(len(CLASSES))
_REDUCTION = 8  # outlines follow the texture's border to within so many pixels
_CELLS = 24  # of each kind an image
_BOX = 25  # half the side of MIDOG's boxes


def write_downloads(folder: Path) -> None:
    """All three; the same bytes each time."""
    write_camelyon16(folder / "camelyon16")
    write_midog(folder / "midog")
    write_gleason(folder / "gleason")


def write_camelyon16(folder: Path) -> None:
    """Two tumour slides of each site with outlines of their lesions in ASAP's XML, holes as exclusions."""
    for site, numbers in ((NORTH, (1, 2)), (SOUTH, (71, 72))):
        for number in numbers:
            name = f"tumor_{number:03d}"
            classes = _write_image(folder / "images" / f"{name}.tif", site, SlideSpec(number, 896, 1024, 0.25))
            lesion = classes[_REDUCTION // 2 :: _REDUCTION, _REDUCTION // 2 :: _REDUCTION] == _DIFFUSE
            _write_text(folder / "annotations" / f"{name}.xml", _asap(lesion))


def write_midog(folder: Path) -> None:
    """Two images of every annotated scanner and one of the fourth, with ``MIDOG.json``."""
    images: list[dict[str, object]] = []
    cells: list[dict[str, object]] = []
    sites = {1: SOUTH, 2: SOUTH, 51: SOUTH, 52: SOUTH, 101: NORTH, 102: NORTH, 151: NORTH}
    for number, site in sites.items():
        spec = SlideSpec(1000 + number, 768 + 8 * (number % 3), 896, 0.25)
        classes = _write_image(folder / f"{number:03d}.tiff", site, spec)
        height, width = classes.shape
        images.append({"id": number, "file_name": f"{number:03d}.tiff", "width": width, "height": height, "license": 1})
        rng = np.random.default_rng(number)
        for category, kind in ((2, _GLANDULAR), (1, _DIFFUSE)) if number < 151 else ():
            places = np.argwhere(classes == kind)
            for y, x in places[rng.choice(len(places), _CELLS, replace=False)].tolist():
                box = [x - _BOX, y - _BOX, x + _BOX, y + _BOX]
                cells.append({"bbox": box, "category_id": category, "image_id": number, "id": len(cells) + 1})
    categories = [{"id": 1, "name": MITOTIC_FIGURE}, {"id": 2, "name": f"not {MITOTIC_FIGURE}"}]
    document = {"info": {}, "licenses": [], "images": images, "categories": categories, "annotations": cells}
    _write_text(folder / "MIDOG.json", json.dumps(document))


def write_gleason(folder: Path) -> None:
    """Two cohorts of two images with masks: one coded as PANDA's Radboud, the other as the Gleason 2019 challenge."""
    for number in (1, 2):
        for site, name, mask_name, values in (
            (NORTH, f"one/img/core{number}.png", f"one/mask/core{number}_mask.png", (2, 4)),
            (SOUTH, f"other/img/slide{number:03d}_core1.png", f"other/mask/slide{number:03d}_core1.png", (1, 4)),
        ):
            drawing = draw(SlideSpec(2000 + number + 10 * values[0], 896, 768, 0.25))
            pixels = _scan(drawing, site, number)
            table = np.zeros(256, np.uint8)
            table[[_GLANDULAR, _DIFFUSE]] = values
            mask = table[drawing.classes]
            if values[0] == 2:  # the value in the red channel
                mask = np.dstack([np.zeros_like(mask), np.zeros_like(mask), mask])
            _write_png(folder / name, pixels[..., ::-1])
            _write_png(folder / mask_name, mask)


def _write_image(path: Path, site: Site, spec: SlideSpec) -> UInt8[np.ndarray, "h w"]:
    """Draw an image as a pyramid; returns the class of each pixel."""
    drawing = draw(spec)
    pixels = _scan(drawing, site, spec.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tiff(path, pixels, spec.mpp, site.jpeg_quality)
    return drawing.classes


def _scan(drawing: Drawing, site: Site, seed: int) -> UInt8[np.ndarray, "h w 3"]:
    rng = np.random.default_rng(seed)
    return expose(drawing.concentrations, site, stain_slide(site, rng), rng)


def _asap(lesion: np.ndarray) -> str:
    """Outlines of a mask as ASAP writes them: outer rings as Tumor, holes as _2."""
    lines = ['<?xml version="1.0"?>', "<ASAP_Annotations>", "\t<Annotations>"]
    rings = [
        ("Tumor" if place == 0 else "_2", ring)
        for polygon in mask_to_polygons(lesion, (_REDUCTION, _REDUCTION))
        for place, ring in enumerate(polygon)
    ]
    for number, (group, ring) in enumerate(rings):
        name = quoteattr(f"Annotation {number}")
        lines.append(f'\t\t<Annotation Name={name} Type="Polygon" PartOfGroup="{group}" Color="#F4FA58">')
        lines.append("\t\t\t<Coordinates>")
        corners = enumerate(ring[:-1])
        lines += [f'\t\t\t\t<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in corners]
        lines += ["\t\t\t</Coordinates>", "\t\t</Annotation>"]
    groups = '<Group Name="Tumor" PartOfGroup="None" Color="#FF0000"><Attributes /></Group>'
    lines += ["\t</Annotations>", f"\t<AnnotationGroups>{groups}</AnnotationGroups>", "</ASAP_Annotations>"]
    return "\n".join(lines) + "\n"


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def main(arguments: Sequence[str]) -> int:
    """Write the downloads into the folder that is named."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m pipelines.smoke FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    write_downloads(folder)
    for name in ("camelyon16", "midog", "gleason"):
        config = f"--config configs/{name}/smoke.yaml --data {folder / name} -o {folder / 'runs' / name}"
        print(f"python -m pipelines.{name} {config}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
