"""The reader of In-shop Clothes Retrieval."""

import pytest

from rll_tf.data.inshop import inshop
from rll_tf.data.layout import Counts
from tests.data.trees import write_inshop

EXPECTED = {"train": Counts(2, 4), "query": Counts(3, 4), "gallery": Counts(3, 3)}


@pytest.mark.parametrize("top", ["", "Img"])
def test_the_partition_is_read(tmp_path, top):
    """Query and gallery share their classes, training none; test is both; img/ lies in either folder."""
    catalogue = inshop(write_inshop(tmp_path, top), EXPECTED)
    classes = {split: set(catalogue.select(split).labels) for split in catalogue.splits}
    assert classes["query"] == classes["gallery"] == classes["test"]
    assert not classes["query"] & classes["train"]
    assert len(catalogue.splits["test"]) == 7
    assert catalogue.class_names[0] == "id_00000001"
    assert catalogue.class_names[catalogue.labels[4]] == "id_00000002"
    assert catalogue.paths[0] == str(tmp_path / top / "img/WOMEN/Dresses/id_00000001/00_1_front.jpg")


def test_missing_pictures_and_wrong_counts_are_refused_with_both_numbers(tmp_path):
    """Each error says what was expected and what was found."""
    root = write_inshop(tmp_path)
    with pytest.raises(ValueError, match="'query' to have 5 pictures of 3 classes; found 4 pictures of 3"):
        inshop(root, {**EXPECTED, "query": Counts(3, 5)})
    (root / "img/WOMEN/Dresses/id_00000003/01_1_front.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="expected 11 picture files; found 10"):
        inshop(root, EXPECTED)


def test_a_broken_list_is_refused(tmp_path):
    """An unknown part, a garment in training and query, another count than announced, no list at all."""
    root = write_inshop(tmp_path)
    file = root / "Eval" / "list_eval_partition.txt"
    whole = file.read_text()
    file.write_text(whole.replace(" query", " val", 1))
    with pytest.raises(ValueError, match="must assign pictures to train, query, gallery; got 'val'"):
        inshop(root, EXPECTED)
    file.write_text(whole.replace("id_00000001 train", "id_00000002 train", 1))
    with pytest.raises(ValueError, match="no class of train among query and gallery; found 2 pictures"):
        inshop(root, EXPECTED)
    for text, message in [
        (whole.replace("11", "12", 1), "expected 12 pictures, as .* announces; it lists 11"),
        (whole.rpartition("\nimg")[0], "expected 11 pictures, as .* announces; it lists 10"),
        ("", "must hold whole numbers here; got ''"),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            inshop(root, EXPECTED)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"list_eval_partition\.txt; looked in .*Eval"):
        inshop(root, EXPECTED)
