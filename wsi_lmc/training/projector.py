"""A projector between embedding and loss, as Barlow Twins has it; the paper takes the loss of the embedding itself.

It is trained along and left behind: what is published is the encoder.
"""

from torch import nn

from wsi_lmc.encoder import seeded


def build_projector(dim: int, width: int, seed: int) -> nn.Module:
    """Two layers of ``width`` features on embeddings of ``dim``, batch-normed between; ``seed`` decides its weights."""

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(dim, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width, bias=False)
        )

    return seeded(build, seed)
