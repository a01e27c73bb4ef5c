"""Labels of tiles: what is written reads back, and fits stores by origin, in whatever order they are."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_lmc.errors import UsageError
from wsi_lmc.labels import NO_CLASS, classes_of, label_table, labels_path, read_labels, write_labels

ORIGINS = np.array([[0, 0], [256, 0], [0, 512], [2**31 - 1, 7]], np.int32)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    path = write_labels(tmp_path, "a", ORIGINS, ["tumour", "", "normal, grey", " =1+1 "])
    assert path == labels_path(tmp_path, "a") == tmp_path / "labels/a.csv"
    assert path.read_text() == 'x,y,label\n0,0,tumour\n0,512,"normal, grey"\n2147483647,7,\'=1+1\n'
    assert read_labels(path) == {(0, 0): "tumour", (0, 512): "normal, grey", (2**31 - 1, 7): "=1+1"}
    write_labels(tmp_path, "a", ORIGINS[:1], ["normal"])
    assert read_labels(path) == {(0, 0): "normal"}
    write_labels(tmp_path, "b", ORIGINS[:0], [])
    assert read_labels(labels_path(tmp_path, "b")) == {}


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12), max_size=5))
def test_any_text_reads_back(tmp_path_factory: pytest.TempPathFactory, labels: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    origins = np.arange(2 * len(labels), dtype=np.int32).reshape(-1, 2)
    path.write_text(label_table(origins, labels), encoding="utf-8", newline="")
    stripped = [label.strip() for label in labels]
    expected = {(2 * n, 2 * n + 1): label for n, label in enumerate(stripped) if label}
    assert read_labels(path) == expected


def test_a_label_for_every_tile(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_labels(tmp_path, "a", ORIGINS, ["x"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,y,label\n1.5,0,a\n", "line 2: x '1.5'"),
        ("x,y,label\n,0,a\n", "line 2: x ''"),
        ("x,y,label\n0,0,a\n0,0,b\n", r"line 3: tile \(0, 0\) again"),
        ("x,label\n0,a\n", "a column y"),
        ("", "a column x"),
    ],
)
def test_tables_that_cannot_be_taken(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_labels(tmp_path / "a.csv")


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_labels(tmp_path / "a.csv")


def test_classes_by_origin_in_any_order() -> None:
    labels = {(0, 0): "b", (256, 0): "a", (0, 512): "other", (9, 9): "a", (2**31 - 1, 7): ""}
    assert classes_of(ORIGINS, labels, "b", ("a", "b")).tolist() == [1, 0, NO_CLASS, NO_CLASS]
    assert classes_of(ORIGINS[::-1], labels, "b", ("a", "b")).tolist() == [NO_CLASS, NO_CLASS, 0, 1]
    assert classes_of(ORIGINS, labels, "b", ("", "a")).tolist() == [NO_CLASS, 1, NO_CLASS, NO_CLASS]
    assert classes_of(ORIGINS, None, "b", ("a", "b")).tolist() == [1, 1, 1, 1], "no table: the slide's label"
    assert classes_of(ORIGINS, None, "", ("", "b")).tolist() == [NO_CLASS] * 4
    none = classes_of(ORIGINS[:0], labels, "", ("a",))
    assert (none.shape, none.dtype) == ((0,), np.int64)
