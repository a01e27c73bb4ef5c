"""Heads on the features of run folders: ``cohort`` finds slides and labels, ``running`` trains, predicts and scores."""

from wsi_lmc.classification.cohort import Selection
from wsi_lmc.classification.running import MODEL, Hearers, Task, apply, classify

__all__ = ["MODEL", "Hearers", "Selection", "Task", "apply", "classify"]
