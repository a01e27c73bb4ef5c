"""Do embeddings of held-out tiles know the slides' labels? Measured while training goes on; nothing is chosen by it."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from wsi_lmc.cohort import SlideEntry

NEIGHBOURS = 20
_BLOCK = 1024  # rows of the similarity matrix at a time


class KnnProbe:
    """Balanced accuracy of the label that most of a tile's nearest neighbours have, its own patient's tiles left out.

    Neighbours are by cosine; a class takes part where two patients at least have it, or its tiles could never be
    told. No more neighbours are asked than every class has tiles of other patients, or the small class could never win.
    Beside it stands what naming the most frequent class gives: one divided by the number of classes.

    Args:
        classes: of each tile, -1 where unknown.
        patients: number of each tile's patient.
    """

    def __init__(self, classes: Int64[np.ndarray, " n"], patients: Int64[np.ndarray, " n"]) -> None:
        wide = [kind for kind in np.unique(classes[classes >= 0]) if len(np.unique(patients[classes == kind])) > 1]
        self.classes = len(wide)
        spare = [_outside_of_largest(patients[classes == kind]) for kind in wide]
        self.neighbours = min([NEIGHBOURS, *spare])
        self._rows = np.flatnonzero(np.isin(classes, wide))
        self._truth = torch.from_numpy(np.searchsorted(wide, classes[self._rows]).astype(np.int64))
        self._patients = torch.from_numpy(patients[self._rows].astype(np.int64))

    def __call__(self, features: Float[Tensor, "n d"]) -> dict[str, float]:
        """The probe's score and the trivial one, of features of all tiles."""
        normed = torch.nn.functional.normalize(features[self._rows].float(), dim=1)
        truth, patients = self._truth.to(normed.device), self._patients.to(normed.device)
        hits = torch.cat([self._hits(normed, truth, patients, rows) for rows in torch.arange(len(truth)).split(_BLOCK)])
        recalls = [float(hits[truth == kind].float().mean()) for kind in range(self.classes)]
        return {"knn_balanced_accuracy": float(np.mean(recalls)), "majority_balanced_accuracy": 1.0 / self.classes}

    def _hits(self, normed: Tensor, truth: Tensor, patients: Tensor, rows: Tensor) -> Tensor:
        """Whether the vote for each of ``rows`` is right; of classes with equally many votes the first one wins."""
        likeness = normed[rows] @ normed.T
        likeness[patients[rows].unsqueeze(1) == patients] = -torch.inf
        near = likeness.topk(self.neighbours)
        votes = torch.zeros((len(rows), self.classes), device=normed.device)
        votes.scatter_add_(1, truth[near.indices], torch.ones_like(near.values))
        return votes.argmax(1) == truth[rows]


def _outside_of_largest(patients: Int64[np.ndarray, " n"]) -> int:
    """How many of a class's tiles there are besides those of the patient with most of them."""
    return len(patients) - int(np.unique(patients, return_counts=True)[1].max())


def probe_of(
    rows: Sequence[Int64[np.ndarray, "_"]], ids: Sequence[str], known: Sequence[SlideEntry]
) -> KnnProbe | None:
    """The probe of held-out ``rows``, one array for each slide of ``ids``; None where labels do not suffice for one."""
    entries = {entry.slide_id: entry for entry in known}
    names = sorted({entry.label for entry in known if entry.label})
    labels = [entries[slide].label if slide in entries else "" for slide in ids]
    patients = [(slide in entries and entries[slide].patient) or f"slide {slide}" for slide in ids]
    counts = [len(row) for row in rows]
    classes = np.asarray([names.index(label) if label else -1 for label in labels], np.int64)
    numbers = np.unique(patients, return_inverse=True)[1].astype(np.int64)
    probe = KnnProbe(np.repeat(classes, counts), np.repeat(numbers, counts))
    return probe if probe.classes > 1 else None
