"""The reader of Stanford Online Products."""

import numpy as np
import pytest

from rll_tf.data.layout import Counts
from rll_tf.data.sop import sop
from tests.data.trees import write_sop

EXPECTED = {"train": Counts(2, 5), "test": Counts(3, 5)}


def test_the_lists_are_the_splits(tmp_path):
    """Labels number both lists' class ids; a class is named by super class and offer."""
    catalogue = sop(write_sop(tmp_path), EXPECTED)
    assert catalogue.labels.tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 4, 4]
    assert catalogue.labels.dtype == np.int64
    assert catalogue.class_names[:2] == ("bicycle/11001", "chair/11002")
    assert catalogue.paths[-1] == str(tmp_path / "Stanford_Online_Products/bicycle_final/11005_1.JPG")
    assert catalogue.select("test").class_count == 3


def test_missing_pictures_and_wrong_counts_are_refused_with_both_numbers(tmp_path):
    """Each error says what was expected and what was found."""
    root = write_sop(tmp_path)
    with pytest.raises(ValueError, match="'test' to have 6 pictures of 3 classes; found 5 pictures of 3"):
        sop(root, {**EXPECTED, "test": Counts(3, 6)})
    (root / "Stanford_Online_Products/chair_final/11002_1.JPG").unlink()
    with pytest.raises(FileNotFoundError, match="expected 10 picture files; found 9"):
        sop(root, EXPECTED)


def test_a_class_in_both_lists_is_refused(tmp_path):
    """The lists must not share a class."""
    root = write_sop(tmp_path)
    file = root / "Stanford_Online_Products" / "Ebay_test.txt"
    file.write_text(file.read_text().replace("6 3 1", "6 2 1"))
    with pytest.raises(ValueError, match="to share no class; found 1 in both"):
        sop(root, EXPECTED)


def test_a_missing_list_is_named(tmp_path):
    """With the folders that were searched."""
    with pytest.raises(FileNotFoundError, match=r"Ebay_train\.txt; looked in .*Stanford_Online_Products"):
        sop(tmp_path)
