"""The reader of CARS196."""

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from rll_tf.data.cars196 import cars196
from rll_tf.data.layout import Counts
from tests.data.trees import write_cars196

EXPECTED = {"train": Counts(2, 5), "test": Counts(2, 3)}


def test_one_archives_annotations(tmp_path):
    """relative_im_path and class from 1; halves by class."""
    catalogue = cars196(write_cars196(tmp_path), EXPECTED)
    assert catalogue.labels.tolist() == [0, 0, 1, 1, 1, 2, 3, 3]
    assert catalogue.labels.dtype == np.int64
    assert catalogue.class_names == ("Car 1", "Car 2", "Car 3", "Car 4")
    assert catalogue.paths[0] == str(tmp_path / "car_ims/000001.jpg")
    assert list(catalogue.splits["test"]) == [5, 6, 7]


@pytest.mark.parametrize("beside", [False, True])
def test_the_devkits_annotations(tmp_path, beside):
    """The field fname within either half; the labels of test lie in devkit/ or beside it."""
    root = write_cars196(tmp_path / "stanford_cars", devkit=True)
    if beside:
        name = "cars_test_annos_withlabels.mat"
        (root / "devkit" / name).rename(root / name)
    catalogue = cars196(tmp_path, EXPECTED)
    assert catalogue.labels.tolist() == [0, 1, 1, 3, 0, 1, 2, 3]
    assert catalogue.class_names == ("Car 1", "Car 2", "Car 3", "Car 4")
    assert catalogue.paths[4] == str(root / "cars_test/00001.jpg")
    assert list(catalogue.splits["train"]) == [0, 1, 2, 4, 5]


def test_a_devkit_in_its_archives_folder_is_found(tmp_path):
    """As copies on Kaggle have it."""
    root = write_cars196(tmp_path, devkit=True)
    (root / "car_devkit").mkdir()
    (root / "devkit").rename(root / "car_devkit" / "devkit")
    assert cars196(root, EXPECTED).class_names == ("Car 1", "Car 2", "Car 3", "Car 4")


def test_of_both_layouts_the_one_with_pictures_is_read(tmp_path):
    """cars_annos.mat beside a whole devkit tree, without and then with car_ims/."""
    root = write_cars196(tmp_path / "tree", devkit=True)
    (write_cars196(tmp_path / "other") / "cars_annos.mat").rename(root / "cars_annos.mat")
    assert cars196(root, EXPECTED).paths[0] == str(root / "cars_train/00001.jpg")
    (tmp_path / "other" / "car_ims").rename(root / "car_ims")
    assert cars196(root, EXPECTED).paths[0] == str(root / "car_ims/000001.jpg")


def test_missing_pictures_and_wrong_counts_are_refused_with_both_numbers(tmp_path):
    """Each error says what was expected and what was found."""
    root = write_cars196(tmp_path)
    with pytest.raises(ValueError, match="have 4 pictures of 2 classes; found 5 pictures of 2 classes"):
        cars196(root, {"train": Counts(2, 4), "test": Counts(2, 4)})
    with pytest.raises(ValueError, match="class ids from 1 to 3; found 1 to 4"):
        cars196(root, {"train": Counts(1, 2), "test": Counts(2, 6)})
    (root / "car_ims/000003.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected 8 picture files; found 7 .*000003\.jpg"):
        cars196(root, EXPECTED)


def test_what_are_no_annotations_is_refused(tmp_path):
    """No file, another file, and a file without the fields."""
    with pytest.raises(
        FileNotFoundError, match=r"cars_annos\.mat or devkit/cars_train_annos\.mat; looked in"
    ):
        cars196(tmp_path)
    (tmp_path / "cars_annos.mat").write_text("<html>moved</html>" * 20)
    with pytest.raises(ValueError, match="is not a whole MATLAB annotation file"):
        cars196(tmp_path)
    (tmp_path / "devkit").mkdir()
    root = write_cars196(tmp_path / "other", devkit=True)
    (root / "devkit/cars_train_annos.mat").rename(root / "cars_annos.mat")
    with pytest.raises(ValueError, match="with the fields relative_im_path and class"):
        cars196(root)


def test_a_damaged_annotation_file_is_named(tmp_path):
    """Cut short at any place, or with a byte changed: official files are compressed, so it is noticed.

    Not so where it is not compressed: SciPy itself may crash on a changed byte, so such a file is only cut.
    """
    root = write_cars196(tmp_path)
    file = root / "cars_annos.mat"
    whole = file.read_bytes()
    damaged = [whole[:length] for length in range(0, 300, 10)]
    for place in range(128, len(whole), 5):
        damaged.append(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
    savemat(file, {key: value for key, value in loadmat(file).items() if not key.startswith("_")})
    damaged += [file.read_bytes()[:length] for length in range(0, 1900, 50)]
    message = r"cars_annos\.mat (is not a whole MATLAB annotation file|must hold annotations)"
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            cars196(root, EXPECTED)
