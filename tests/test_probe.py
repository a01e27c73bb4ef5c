"""The probe of labels: scikit-learn's score of the same vote, patients kept apart, and no probe without two classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.training.probe import KnnProbe, probe_of


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_the_vote_of_other_patients_tiles(classes: int) -> None:
    rng = np.random.default_rng(classes)
    patients = rng.integers(0, 7, 150)
    truth = patients % classes
    features = rng.normal(size=(150, 5)) + 0.6 * truth[:, None] * np.array([1, -1, 0, 0, 2]) + 2
    probe = KnnProbe(truth, patients)
    found = probe(torch.from_numpy(features))
    called = np.empty(150, np.int64)
    for patient in np.unique(patients):
        mine = patients == patient
        model = KNeighborsClassifier(probe.neighbours, metric="cosine", algorithm="brute")
        called[mine] = model.fit(features[~mine], truth[~mine]).predict(features[mine])
    assert found["knn_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, called))
    assert 10 < probe.neighbours <= 20
    assert found["majority_balanced_accuracy"] == pytest.approx(1 / classes)


def test_knowing_the_patient_alone_is_of_no_use() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 10)
    features = rng.normal(size=(40, 16))[patients] + 0.01 * rng.normal(size=(400, 16))
    truth = rng.permutation(np.arange(40) % 2)[patients]
    score = KnnProbe(truth, patients)(torch.from_numpy(features))["knn_balanced_accuracy"]
    assert 0.2 < score < 0.7, "with the own patient's tiles it would be 1"


def test_unknown_and_lonely_classes_are_left_out() -> None:
    patients = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    truth = np.array([0, 0, 1, 1, 0, 0, 1, 1, 2, -1])
    features = torch.eye(2)[torch.from_numpy(np.where(truth == 1, 1, 0))]
    probe = KnnProbe(truth, patients)
    assert probe.classes == 2, "the third class has one patient"
    assert probe.neighbours == 2, "as many as each class has in other patients"
    assert probe(features) == {"knn_balanced_accuracy": 1.0, "majority_balanced_accuracy": 0.5}


def _entry(name: str, label: str, patient: str = "") -> SlideEntry:
    return SlideEntry(Path(name), name, label=label, patient=patient)


def test_labels_come_from_the_slides_of_the_manifest() -> None:
    known = [_entry("a", "tumor"), _entry("b", "normal"), _entry("c", "tumor"), _entry("d", "normal"), _entry("e", "")]
    rows = [np.arange(3), np.arange(2), np.arange(4), np.arange(1), np.arange(5), np.arange(2)]
    probe = probe_of(rows, ["a", "b", "c", "d", "e", "unlisted"], known)
    assert probe is not None
    features = torch.eye(2)[torch.tensor([0] * 3 + [1] * 2 + [0] * 4 + [1] + [0] * 7)]
    assert probe(features)["knn_balanced_accuracy"] == 1.0
    assert probe_of(rows[:2], ["a", "b"], known) is None, "a patient of a class is no other"
    same = [_entry(name, label, patient) for name, label, patient in (("a", "x", "p"), ("b", "y", "q"))]
    same += [_entry("c", "x", "p"), _entry("d", "y", "q")]
    assert probe_of(rows[:4], ["a", "b", "c", "d"], same) is None, "two slides of one patient are one"
    assert probe_of(rows, list("abcdef"), []) is None
