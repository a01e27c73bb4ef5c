"""What moves pixels: flips, rotations and crops of tiles, before their views are coloured."""

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def turn(planes: UInt8[Tensor, "b 3 h w"], turns: Int64[Tensor, " b"]) -> UInt8[Tensor, "b 3 h w"]:
    """Flip and rotate each tile by its number, 0 to 7: the three bits of it flip x, flip y and swap the axes.

    Axes are swapped only where tiles are square. No tile is looked up by its number, which would make a GPU wait.
    """
    bits = [((turns & bit) > 0).view(-1, 1, 1, 1) for bit in (1, 2, 4)]
    turned = torch.where(bits[0], planes.flip(3), planes)
    turned = torch.where(bits[1], turned.flip(2), turned)
    if planes.shape[2] == planes.shape[3]:
        turned = torch.where(bits[2], turned.transpose(2, 3), turned)
    return turned


def crop(planes: UInt8[Tensor, "b 3 h w"], windows: Float32[Tensor, "b 3"]) -> UInt8[Tensor, "b 3 h w"]:
    """The part of each tile that its window states, enlarged to the tile's size, bilinear.

    Args:
        planes: tiles.
        windows: side as a share of the tile's, and where the middle lies along x and y, from -1 to 1.
    """
    side, middle = windows[:, :1], windows[:, 1:] * (1.0 - windows[:, :1])
    matrix = torch.cat([torch.eye(2, device=planes.device) * side.unsqueeze(-1), middle.unsqueeze(-1)], -1)
    grid = affine_grid(matrix, list(planes.shape), align_corners=False)
    seen = grid_sample(planes.to(torch.float32), grid, padding_mode="border", align_corners=False)
    return seen.round().to(torch.uint8)
