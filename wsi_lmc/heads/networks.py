"""Two networks on bags of tiles; both are blind to the order of the tiles, and linear in their number.

`GatedAttention` is the gated attention of Ilse, Tomczak and Welling (2018), equation 9. `SetTransformer` lets tiles
exchange what they know through a few learnt tokens (induced set attention) and pools by attention of one token, both of
Lee et al. (2019). TransMIL (Shao et al. 2021) reaches the same cost by averaging neighbours in the list into landmarks,
which makes the outcome depend on the list's order; that is why it is not used here.

Bags of several sizes are padded; ``present`` says which rows are tiles. Each network gives logits and the attention of
each tile, which sums to 1 over a bag.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

NetworkKind = Literal["abmil", "transformer"]
_INDUCING, _HEADS, _LAYERS = 16, 4, 2


@dataclass(frozen=True)
class NetworkShape:
    """What a network is made for: features of ``dim`` numbers, ``classes``, layers ``hidden`` wide."""

    kind: NetworkKind
    dim: int
    classes: int
    hidden: int
    dropout: float


class GatedAttention(nn.Module):
    """Attention a tile: softmax over the bag of w . (tanh(V h) * sigmoid(U h)); the bag is the mean so weighted."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.project = nn.Linear(shape.dim, shape.hidden)
        self.content = nn.Linear(shape.hidden, shape.hidden // 2)
        self.gate = nn.Linear(shape.hidden, shape.hidden // 2)
        self.weigh = nn.Linear(shape.hidden // 2, 1)
        self.decide = nn.Linear(shape.hidden, shape.classes)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(
        self, tiles: Float[Tensor, "b n d"], present: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b n"]]:
        """Logits and attention."""
        hidden = self.dropout(torch.relu(self.project(tiles)))
        gated = torch.tanh(self.content(hidden)) * torch.sigmoid(self.gate(hidden))
        scores = self.weigh(gated).squeeze(-1).masked_fill(~present, -torch.inf)
        attention = torch.softmax(scores, dim=1)
        pooled = torch.einsum("bn,bnh->bh", attention, hidden)
        return self.decide(self.dropout(pooled)), attention


class SetTransformer(nn.Module):
    """Tiles, told of the whole bag by induced set attention, pooled by a token's attention."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.project = nn.Linear(shape.dim, shape.hidden)
        self.layers = nn.ModuleList(_InducedAttention(shape.hidden, shape.dropout) for _ in range(_LAYERS))
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, shape.hidden))
        self.pool = _Attend(shape.hidden, shape.dropout)
        self.norm = nn.LayerNorm(shape.hidden)
        self.decide = nn.Linear(shape.hidden, shape.classes)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(
        self, tiles: Float[Tensor, "b n d"], present: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b n"]]:
        """Logits, and the pooling token's attention, averaged over its heads."""
        hidden = self.dropout(torch.relu(self.project(tiles)))
        for layer in self.layers:
            hidden = layer(hidden, present)
        pooled, attention = self.pool(self.token.expand(len(tiles), -1, -1), hidden, present)
        return self.decide(self.norm(pooled[:, 0])), attention.mean(dim=1)[:, 0]


class _InducedAttention(nn.Module):
    """A few learnt tokens attend to the bag, then the bag to them: each tile hears of all others at linear cost."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inducing = nn.Parameter(0.02 * torch.randn(1, _INDUCING, width))
        self.gather = _Attend(width, dropout)
        self.spread = _Attend(width, dropout)

    def forward(self, tiles: Float[Tensor, "b n h"], present: Bool[Tensor, "b n"]) -> Float[Tensor, "b n h"]:
        tokens, _ = self.gather(self.inducing.expand(len(tiles), -1, -1), tiles, present)
        everywhere = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return self.spread(tiles, tokens, everywhere)[0]


class _Attend(nn.Module):
    """Multi-head attention of ``queries`` to ``keys`` and a feed-forward part, normalised before, added to the queries.

    Written out, and not by the fused kernel, since the weights are wanted and its gradient on CUDA is not the same in
    every run.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm_queries, self.norm_keys, self.norm_between = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout),
                                  nn.Linear(2 * width, width))  # fmt: skip

    def forward(
        self, queries: Float[Tensor, "b m h"], keys: Float[Tensor, "b n h"], present: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b m h"], Float[Tensor, "b heads m n"]]:
        asked, known = self.norm_queries(queries), self.norm_keys(keys)
        query, key, value = (
            layer(rows).unflatten(-1, (_HEADS, -1)).transpose(1, 2)
            for layer, rows in ((self.query, asked), (self.key, known), (self.value, known))
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        weights = torch.softmax(scores.masked_fill(~present[:, None, None], -torch.inf), dim=-1)
        mixed = queries + self.out((weights @ value).transpose(1, 2).flatten(2))
        return mixed + self.feed(self.norm_between(mixed)), weights


def build_network(shape: NetworkShape) -> nn.Module:
    """A network of a shape; its weights are drawn from torch's global generator."""
    return GatedAttention(shape) if shape.kind == "abmil" else SetTransformer(shape)
