"""A slide's size and levels, and which level serves a wanted mpp: pure arithmetic, no files."""

from dataclasses import dataclass

from wsi_lmc.errors import SlideError
from wsi_lmc.units import LevelSize, Mpp, SlideBox, SlidePoint, SlideSize, TileSize

NATIVE_TOLERANCE = 0.02  # a level within 2 % of the wanted mpp is taken as it is


@dataclass(frozen=True)
class SlideGeometry:
    """Size, pixel size and levels of one slide."""

    size: SlideSize
    mpp: Mpp
    downsamples: tuple[float, ...]
    bounds: SlideBox

    def level_mpp(self, level: int) -> Mpp:
        """Microns per pixel of a level."""
        return self.mpp.scaled(self.downsamples[level], self.downsamples[level])


@dataclass(frozen=True)
class SlideInfo:
    """What a store records of its slide: an allowlist, so that no name of a patient slips through.

    ``compared`` stands where pixels are decoded directly: with what they were compared on opening, in how many
    regions, and the difference found at each level (see ``proof``).
    """

    id: str
    width: int
    height: int
    mpp: tuple[float, float]
    mpp_source: str
    vendor: str
    reader: str
    compared: tuple[str, int, tuple[float, ...]] | None
    quickhash: str | None
    bounds: tuple[int, int, int, int]


@dataclass(frozen=True)
class Sampling:
    """How one tile is read: ``read`` pixels of ``level``, reduced by area to ``tile`` target pixels.

    ``footprint`` is the tile's width and height in level-0 pixels; ``effective_mpp`` what a target pixel really
    covers, because whole level pixels are read (at 256 px this differs from ``requested_mpp`` by 0.2 % at most, or
    by up to 2 % where a level is taken as it is).
    """

    level: int
    downsample: float
    read: LevelSize
    tile: TileSize
    footprint: tuple[float, float]
    requested_mpp: float
    level_mpp: Mpp
    effective_mpp: Mpp

    @property
    def resampled(self) -> bool:
        """Whether pixels are changed at all on their way from the level to the tile."""
        return (self.read.width, self.read.height) != (self.tile.width, self.tile.height)


def choose_sampling(geometry: SlideGeometry, tile_px: int, tile_mpp: float) -> Sampling:
    """Take a level within 2 % of ``tile_mpp`` as it is, else the next finer level, to be reduced by area.

    Axes are treated apart, so that a tile of a slide with oblong pixels covers equal microns in x and y.

    Raises:
        SlideError: ``too_coarse`` where the slide has no level as fine as asked for.
    """
    wanted = [geometry.level_mpp(level) for level in range(len(geometry.downsamples))]
    native = [
        level
        for level, mpp in enumerate(wanted)
        if max(abs(tile_mpp / mpp.x - 1.0), abs(tile_mpp / mpp.y - 1.0)) <= NATIVE_TOLERANCE
    ]
    finer = [level for level, mpp in enumerate(wanted) if max(mpp.x, mpp.y) <= tile_mpp]
    if not native and not finer:
        raise SlideError(
            "too_coarse",
            f"the finest level has {geometry.mpp.mean:.4g} um/px",
            f"{tile_mpp:.4g} um/px or finer (tiles are never magnified)",
            f"Tile this slide with --tile-mpp {geometry.mpp.mean:.3g} or more.",
        )
    level = native[0] if native else finer[-1]
    level_mpp, downsample = wanted[level], geometry.downsamples[level]
    if native:
        read = LevelSize(tile_px, tile_px)
    else:
        read = LevelSize(round(tile_px * tile_mpp / level_mpp.x), round(tile_px * tile_mpp / level_mpp.y))
    return Sampling(
        level=level,
        downsample=downsample,
        read=read,
        tile=TileSize(tile_px, tile_px),
        footprint=(read.width * downsample, read.height * downsample),
        requested_mpp=tile_mpp,
        level_mpp=level_mpp,
        effective_mpp=level_mpp.scaled(read.width / tile_px, read.height / tile_px),
    )


def whole_slide(size: SlideSize) -> SlideBox:
    """The box of the whole slide."""
    return SlideBox(SlidePoint(0, 0), size)
