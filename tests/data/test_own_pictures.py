"""A user's own arrays, files, tables and datasets: catalogues and C × K batches."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from rll_tf.data import Catalogue, class_balanced_batches, class_balanced_dataset, load_pictures, open_dataset
from rll_tf.data.images import Preprocessing

LABELS = np.array([7, 3, 3, 7, 9, 9, 3, 7])
PICTURES = (np.arange(8)[:, None, None, None] * np.ones([8, 4, 4, 3])).astype(np.uint8)


def first_two(dataset):
    """The pictures' numbers and the labels of two batches."""
    return [
        (batch[:, 0, 0, 0].tolist(), labels.tolist()) for batch, labels in dataset.take(2).as_numpy_iterator()
    ]


@pytest.mark.parametrize(
    "pictures",
    [
        PICTURES,
        lambda index: tf.gather(tf.constant(PICTURES), index),
        tf.data.Dataset.from_tensor_slices(PICTURES),
        tf.data.Dataset.from_tensor_slices(PICTURES).batch(3),
        tf.data.Dataset.from_tensor_slices((PICTURES, LABELS)),
    ],
    ids=["array", "function", "dataset", "dataset of batches", "dataset of pairs"],
)
def test_every_source_gives_the_samplers_batches(pictures):
    """Its pictures, with the labels that were given; any step can be first."""
    sampler = class_balanced_batches(LABELS, 2, 2, seed=5)
    expected = [(sampler[step].tolist(), LABELS[sampler[step]].tolist()) for step in range(3)]
    assert first_two(class_balanced_dataset(pictures, LABELS, 2, 2, seed=5)) == expected[:2]
    assert first_two(class_balanced_dataset(pictures, LABELS, 2, 2, seed=5, first_step=1)) == expected[1:]


@pytest.mark.parametrize(
    "names", [LABELS, LABELS[:, None], LABELS.astype(str)], ids=["[n]", "[n, 1]", "strings"]
)
@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_dataset_keeps_its_labels(names, batch_size):
    """Shuffled anew in every pass, in batches or one by one: a picture has the label that it came with."""
    dataset = tf.data.Dataset.from_tensor_slices((PICTURES, names)).shuffle(8, seed=1)
    dataset = dataset if batch_size is None else dataset.batch(batch_size)
    shown = set()
    for batch, labels in class_balanced_dataset(dataset, None, 3, 2).take(4).as_numpy_iterator():
        numbers = batch[:, 0, 0, 0]
        assert labels.astype(int).tolist() == LABELS[numbers].tolist()
        shown |= set(numbers)
    assert len(shown) > 6
    with pytest.raises(
        ValueError, match=r"those that the dataset yields, in its order: .* of them different"
    ):
        class_balanced_dataset(dataset, names, 3, 2)


def test_a_dataset_that_can_not_be_read_is_refused():
    """Without end, one-hot or floating labels, none at all, dictionaries, several shapes."""
    slices = tf.data.Dataset.from_tensor_slices
    pairs = slices((PICTURES, LABELS))
    for dataset, message in [
        (pairs.repeat(), "must be a dataset that ends"),
        (slices((PICTURES, np.eye(10)[LABELS])), r"not one-hot: got shape \(1, 10\)"),
        (slices((PICTURES, np.eye(10)[LABELS])).batch(3), r"not one-hot: got shape \(3, 10\)"),
        (slices((PICTURES, LABELS / 2)), "must be integers or strings"),
        (slices(PICTURES), "labels must be given"),
        (slices({"image": PICTURES, "label": LABELS}), r"must be of \(picture, label\) or of pictures: got"),
        (pairs.take(0), "of one shape: got no picture"),
        (
            tf.data.Dataset.range(1, 5).map(lambda side: (tf.zeros([side, 2]), side)),
            r"of one shape: got \(1, 2\) and \(2, 2\); resize them first",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            class_balanced_dataset(dataset, classes_per_batch=3, images_per_class=2)
    with pytest.raises(ValueError, match="got 5 for 8 pictures; leave labels out"):
        class_balanced_dataset(pairs, LABELS[:5], 2, 2)
    with pytest.raises(ValueError, match="8 of them different"):
        class_balanced_dataset(pairs, LABELS.astype(str), 2, 2)


def test_labels_may_be_strings():
    """They come back as they are."""
    names = np.array([f"class {label}" for label in LABELS])
    for batch, labels in class_balanced_dataset(PICTURES, names, 3, 2).take(2).as_numpy_iterator():
        assert [name.decode() for name in labels] == names[batch[:, 0, 0, 0]].tolist()


def test_as_many_labels_as_pictures():
    """Also of a dataset, whose pictures are counted when it is read."""
    for pictures in (PICTURES[:5], tf.data.Dataset.from_tensor_slices(PICTURES[:5])):
        with pytest.raises(ValueError, match="got 5 pictures, 8 labels"):
            class_balanced_dataset(pictures, LABELS, 2, 2)


def test_arrays_are_a_catalogue():
    """Labels are numbered in their order; splits are as they were named."""
    splits = np.where(LABELS == 9, "test", "train")
    catalogue = Catalogue.from_arrays(PICTURES, LABELS, splits)
    assert catalogue.class_names == ("3", "7", "9")
    assert catalogue.labels.tolist() == [1, 0, 0, 1, 2, 2, 0, 1]
    assert catalogue.splits["test"].tolist() == [4, 5]
    np.testing.assert_array_equal(load_pictures(catalogue, Preprocessing(4, 4)), PICTURES)
    assert Catalogue.from_arrays(PICTURES[..., 0], LABELS).pixels.shape == (8, 4, 4, 1)


def test_arrays_that_are_no_pictures_are_refused():
    """Floats, whose range nobody knows, and vectors."""
    with pytest.raises(ValueError, match=r"must be \[n, height, width, 1 or 3\] uint8; got .* dtype float64"):
        Catalogue.from_arrays(PICTURES / 255, LABELS)
    with pytest.raises(ValueError, match=r"got shape \(8, 4, 4, 2\)"):
        Catalogue.from_arrays(PICTURES[..., :2], LABELS)
    with pytest.raises(ValueError, match="train and test share 3"):
        Catalogue.from_arrays(PICTURES, LABELS, ["train", "train", "test", *["train"] * 5])


@pytest.fixture
def table(tmp_path):
    """A table of eight files of three classes, one of them to test on."""
    rows = ["path,label,split,who"]
    for number, label in enumerate(LABELS):
        Image.fromarray(PICTURES[number]).save(tmp_path / f"{number}.png")
        rows.append(f'{number}.png,"kind, {label}",{"test" if label == 9 else "train"},me')
    file = tmp_path / "pictures.csv"
    file.write_text("\n".join(rows), "utf-8")
    return file


def test_a_table_is_a_data_set(table):
    """Paths are relative to it; a byte order mark, as spreadsheets write it, does no harm."""
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    catalogue = open_dataset(f"csv:{table}")
    assert catalogue.spec == f"csv:{table}"
    assert catalogue.class_names == ("kind, 3", "kind, 7", "kind, 9")
    assert catalogue.select("test").labels.tolist() == [2, 2]
    np.testing.assert_array_equal(load_pictures(catalogue, Preprocessing(4, 4)), PICTURES)
    files = Catalogue.from_files(catalogue.paths, catalogue.labels)
    assert not files.splits
    assert files.labels.tolist() == catalogue.labels.tolist()


def test_a_picture_may_be_in_no_split(table):
    """Its cell is empty, or its line ends before it; it is in the catalogue, and in no split."""
    lines = table.read_text("utf-8").splitlines()
    lines[1:3] = ['0.png,"kind, 7",,me', '1.png,"kind, 3"']
    table.write_text("\n".join(lines), "utf-8")
    catalogue = open_dataset(f"csv:{table}")
    assert {name: indices.tolist() for name, indices in catalogue.splits.items()} == {
        "train": [2, 3, 6, 7],
        "test": [4, 5],
    }
    assert len(catalogue) == 8


def test_a_table_without_its_columns_is_refused(table):
    """The message says which there must be."""
    table.write_text(table.read_text("utf-8").replace("label", "species"), "utf-8")
    with pytest.raises(ValueError, match="must have a first line with path,label"):
        open_dataset(f"csv:{table}")
    with pytest.raises(FileNotFoundError, match=r"there is no file nowhere\.csv"):
        open_dataset("csv:nowhere.csv")
    table.write_bytes(b"\xff\xd8")
    with pytest.raises(ValueError, match=r"pictures\.csv must be a table in UTF-8: .* 0xff"):
        open_dataset(f"csv:{table}")
