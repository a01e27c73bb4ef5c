"""The embeddings of a whole batch, and the gradient of its loss, in the memory of a part of it.

The loss correlates features over the whole batch, so a smaller batch would be another loss. Instead (Gao et al. 2021,
"GradCache"): embed part by part without a graph, take the loss and its gradient with respect to all embeddings, then
embed each part again and propagate its share of that gradient. The result is that of the whole batch but for rounding,
as long as the network draws nothing at random and looks at each image by itself, which a ViT without dropout does.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float32
from torch import Tensor

Network = Callable[[Tensor], Tensor]
Render = Callable[[slice], tuple[Tensor, Tensor]]


class PairedBatch:
    """Two views of each of ``count`` tiles on their way through a network.

    Args:
        network: from images to embeddings, one of each.
        render: the first views, then the second ones, of some of the tiles; and the share of values clipped in them.
        count: tiles in the batch.
    """

    def __init__(self, network: Network, render: Render, count: int) -> None:
        self._network, self._render, self._count = network, render, count
        self._graph: Tensor | None = None

    def embed(self, micro: int) -> tuple[Float32[Tensor, "views d"], Float32[Tensor, ""]]:
        """Embeddings of all first views, then of all second ones, without a graph; and the share of clipped values.

        ``micro`` tiles at a time; where that is all of them, the graph is kept and `propagate` need not embed anew.
        """
        self._graph = None
        if micro >= self._count:
            images, clipped = self._render(slice(0, self._count))
            self._graph = self._network(images)
            return self._graph.detach(), clipped
        pairs, shares = [], []
        with torch.no_grad():
            for part in self._parts(micro):
                images, clipped = self._render(part)
                pairs.append(self._network(images).chunk(2))
                shares.append(clipped * (part.stop - part.start) / self._count)
        return torch.cat([torch.cat(side) for side in zip(*pairs, strict=True)]), torch.stack(shares).sum()

    def propagate(self, gradient: Float32[Tensor, "views d"], micro: int) -> None:
        """Add to the weights' gradients what follows from the loss's gradient with respect to `embed`'s result."""
        graph, self._graph = self._graph, None  # after a failure here nothing holds the graph's memory
        if graph is not None and micro >= self._count:
            graph.backward(gradient)
            return
        del graph
        first, second = gradient.chunk(2)
        for part in self._parts(micro):
            self._network(self._render(part)[0]).backward(torch.cat([first[part], second[part]]))

    def _parts(self, micro: int) -> Iterator[slice]:
        for start in range(0, self._count, micro):
            yield slice(start, min(start + micro, self._count))
