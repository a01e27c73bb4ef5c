"""Coordinates that cannot be confused: each type belongs to one frame.

``Slide…``  level-0 pixels of the slide, origin at its top-left corner, x to the right, y down.
``Level…``  pixels of one pyramid level.
``Tile…``   target pixels, as a network sees them.
``Mpp``     microns per pixel of whichever frame its owner states.

Conversions live here and nowhere else. Arrays are indexed [y, x]; types are always (x, y) or (width, height).
"""

from dataclasses import dataclass

NOMINAL = "nominal"
"""How the source of a pixel size begins that only stands in, because nobody knows the real one."""


@dataclass(frozen=True, slots=True)
class Mpp:
    """Microns per pixel along x and y."""

    x: float
    y: float

    @property
    def mean(self) -> float:
        """Geometric mean of both axes: the side of the square pixel of equal area, in microns."""
        return (self.x * self.y) ** 0.5

    @property
    def anisotropy(self) -> float:
        """Relative difference of the two axes: 0 for square pixels, 0.02 for two per cent.

        >>> round(Mpp(0.25, 0.255).anisotropy, 4)
        0.02
        """
        return max(self.x, self.y) / min(self.x, self.y) - 1.0

    def scaled(self, x: float, y: float) -> "Mpp":
        """The pixel size after reducing the image by the factors ``x`` and ``y``.

        >>> Mpp(0.25, 0.25).scaled(2, 2)
        Mpp(x=0.5, y=0.5)
        """
        return Mpp(self.x * x, self.y * y)


@dataclass(frozen=True, slots=True)
class SlidePoint:
    """A position in level-0 pixels."""

    x: int
    y: int


@dataclass(frozen=True, slots=True)
class SlideSize:
    """A width and height in level-0 pixels."""

    width: int
    height: int

    def microns(self, mpp: Mpp) -> tuple[float, float]:
        """Width and height in microns, for the level-0 pixel size ``mpp``.

        >>> SlideSize(512, 256).microns(Mpp(0.25, 0.25))
        (128.0, 64.0)
        """
        return self.width * mpp.x, self.height * mpp.y


@dataclass(frozen=True, slots=True)
class SlideBox:
    """A rectangle in level-0 pixels: top-left corner and size."""

    origin: SlidePoint
    size: SlideSize

    @property
    def right(self) -> int:
        """First x beyond the box, in level-0 pixels."""
        return self.origin.x + self.size.width

    @property
    def bottom(self) -> int:
        """First y below the box, in level-0 pixels."""
        return self.origin.y + self.size.height


@dataclass(frozen=True, slots=True)
class LevelSize:
    """A width and height in pixels of one pyramid level."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class TileSize:
    """A width and height in target pixels."""

    width: int
    height: int
