"""The reader of CUB-200-2011."""

import numpy as np
import pytest

from rll_tf.data import open_dataset
from rll_tf.data.cub200 import cub200
from rll_tf.data.layout import Counts
from tests.data.trees import write_cub200

EXPECTED = {"train": Counts(2, 5), "test": Counts(2, 3)}


def test_ids_begin_at_one_and_classes_are_halved_in_order(tmp_path):
    """Label 0 is class id 1, pictures are in the order of their ids; either directory opens."""
    root = write_cub200(tmp_path)
    catalogue = cub200(root, EXPECTED)
    assert catalogue.labels.tolist() == [0, 0, 1, 1, 1, 2, 3, 3]
    assert catalogue.labels.dtype == np.int64
    assert catalogue.class_names == ("001.Bird_1", "002.Bird_2", "003.Bird_3", "004.Bird_4")
    assert catalogue.paths[2] == str(root / "CUB_200_2011/images/002.Bird_2/Bird_2_0000.jpg")
    assert {name: list(indices) for name, indices in catalogue.splits.items()} == {
        "train": [0, 1, 2, 3, 4],
        "test": [5, 6, 7],
    }
    assert cub200(root / "CUB_200_2011", EXPECTED).paths == catalogue.paths


def test_a_missing_picture_is_refused_with_both_numbers(tmp_path):
    """Expected, found, and the first that is missing."""
    root = write_cub200(tmp_path)
    (root / "CUB_200_2011/images/002.Bird_2/Bird_2_0001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected 8 picture files; found 7 .*Bird_2_0001\.jpg"):
        cub200(root, EXPECTED)


def test_a_wrong_count_is_refused_with_both_numbers(tmp_path):
    """Such as the classification benchmark's own split would give."""
    with pytest.raises(
        ValueError, match="'train' to have 6 pictures of 2 classes; found 5 pictures of 2 classes"
    ):
        cub200(write_cub200(tmp_path), {"train": Counts(2, 6), "test": Counts(2, 2)})


def test_broken_lists_are_refused(tmp_path):
    """Labels of other pictures, class ids out of range, a list that is missing."""
    root = write_cub200(tmp_path)
    labels = root / "CUB_200_2011" / "image_class_labels.txt"
    whole = labels.read_text()
    labels.write_text(whole.replace("8 4", "9 4"))
    with pytest.raises(ValueError, match=r"to label the 8 pictures .*; it labels 7 of them and 8 in all"):
        cub200(root, EXPECTED)
    labels.write_text(whole.replace("1 1\n", "1 0\n", 1))
    with pytest.raises(ValueError, match="class ids from 1 to 4; found 0 to 4"):
        cub200(root, EXPECTED)
    labels.unlink()
    with pytest.raises(FileNotFoundError, match=r"needs the file image_class_labels\.txt"):
        cub200(root, EXPECTED)


def test_the_published_counts_are_asserted_by_the_spec(tmp_path, monkeypatch):
    """A tree of 11,788 pictures opens by name from its own folder; one fewer does not."""
    sizes = (58,) * 36 + (59,) * 64 + (59,) * 76 + (60,) * 24
    assert (sum(sizes[:100]), sum(sizes[100:])) == (5864, 5924)
    monkeypatch.setenv("RLL_DATASETS", str(tmp_path))
    write_cub200(tmp_path / "cub200", sizes, pictures=False)
    catalogue = open_dataset("cub200")
    assert catalogue.spec == "cub200"
    assert {name: len(indices) for name, indices in catalogue.splits.items()} == {"train": 5864, "test": 5924}
    (tmp_path / "cub200/CUB_200_2011/images/200.Bird_200/Bird_200_0000.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="expected 11,788 picture files; found 11,787"):
        open_dataset("cub200")
