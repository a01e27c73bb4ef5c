"""The synthetic downloads are what the pipelines' readers expect, and say the truth about their pixels."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.smoke import main
from wsi_lmc.annotations import (
    CODINGS,
    HARD_NEGATIVE,
    MITOTIC_FIGURE,
    inside_shares,
    read_asap,
    read_grades,
    read_midog,
)
from wsi_lmc.synthetic import SlideSpec, draw


def test_outlines_follow_the_drawn_texture(downloads: Path) -> None:
    classes = draw(SlideSpec(71, 896, 1024, 0.25)).classes
    annotation = read_asap(downloads / "camelyon16" / "annotations" / "tumor_071.xml")
    assert annotation.lesions
    lattice = np.stack(np.meshgrid(np.arange(0, 896, 128), np.arange(0, 1024, 128)), -1).reshape(-1, 2)
    shares = inside_shares(annotation, lattice.astype(np.int32), (128.0, 128.0))
    drawn = [(classes[y : y + 128, x : x + 128] == 1).mean() for x, y in lattice]
    np.testing.assert_allclose(shares, drawn, atol=0.05)


def test_cells_lie_in_the_texture_of_their_label(downloads: Path) -> None:
    images = {image.file_name: image for image in read_midog(downloads / "midog" / "MIDOG.json")}
    image = images["052.tiff"]
    classes = draw(SlideSpec(1052, image.width, image.height, 0.25)).classes
    names = {0: HARD_NEGATIVE, 1: MITOTIC_FIGURE}
    found = [names[classes[int(y), int(x)]] for x, y in image.centres]
    assert found == list(image.labels)
    assert (len(images), images["151.tiff"].labels) == (7, ())


def test_masks_have_the_size_of_their_images(downloads: Path) -> None:
    for folder, mask, coding in (("one", "core1_mask", "panda_radboud"), ("other", "slide001_core1", "gleason2019")):
        values = read_grades(downloads / "gleason" / folder / "mask" / f"{mask}.png", CODINGS[coding])
        image = cv2.imread(str(downloads / "gleason" / folder / "img" / f"{mask.removesuffix('_mask')}.png"))
        assert image is not None
        assert image.shape[:2] == values.shape == (768, 896)
        assert len(np.unique(values)) == 3


def test_the_command_names_what_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 2
    assert "usage" in capsys.readouterr().err
