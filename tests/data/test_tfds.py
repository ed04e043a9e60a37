"""tensorflow-datasets' builders, played by a stand-in: the package is an extra."""

import logging
import sys
import types

import numpy as np
import pytest
from PIL import Image

from rll_tf.data import open_dataset
from rll_tf.data.layout import Counts
from rll_tf.data.tfds import tfds

PNG = b"\x89PNG rest"


class Builder:
    """Two splits that share classes, ids from 1, as a classification benchmark has them."""

    def __init__(self, name, features=("image", "label")):
        self.name = name.partition(":")[0]
        label = types.SimpleNamespace(names=[f"class {i}" for i in range(5)])
        self.info = types.SimpleNamespace(
            full_name=f"{self.name}/1.0.0",
            features=dict.fromkeys(features, label),
            splits={"train": None, "test": None},
        )

    def download_and_prepare(self):
        """Succeed, unless the address is dead."""
        if self.name == "dead":
            logging.getLogger("urllib3.connectionpool").warning("Retrying after connection broken")
            raise ConnectionError("404 for http://gone\nmore")

    def as_dataset(self, split, shuffle_files, decoders):
        """A split's examples."""
        assert not shuffle_files
        assert decoders == {"image": "skip"}
        labels = [1, 2, 3, 4] if split == "train" else [1, 4]
        examples = [{"image": PNG if label == 1 else b"\xff\xd8", "label": label} for label in labels]
        return types.SimpleNamespace(as_numpy_iterator=lambda: iter(examples))


@pytest.fixture
def package(monkeypatch, tmp_path):
    """The stand-in, and a folder of its own for what is unpacked."""
    module = types.ModuleType("tensorflow_datasets")
    module.builder = Builder
    module.decode = types.SimpleNamespace(SkipDecoding=lambda: "skip")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    monkeypatch.setenv("RLL_DATASETS", str(tmp_path))
    return module


def test_a_builders_splits_come_together_as_files(package, tmp_path):
    """Pictures are unpacked unchanged, classes renumbered from 0 with their own names."""
    catalogue = open_dataset("tfds:things")
    assert catalogue.spec == "tfds:things"
    assert catalogue.labels.tolist() == [0, 3, 0, 1, 2, 3]
    assert catalogue.labels.dtype == np.int64
    assert catalogue.class_names == ("class 1", "class 2", "class 3", "class 4")
    assert catalogue.splits == {}
    assert catalogue.paths[0] == str(tmp_path / "tfds/things-1.0.0/00000/00000000.png")
    assert catalogue.encoded(0) == PNG


def test_they_are_unpacked_once(package, monkeypatch):
    """The second time the files are there; half an unpacking is begun anew."""
    open_dataset("tfds:things")
    monkeypatch.setattr(Builder, "as_dataset", None)
    assert len(open_dataset("tfds:things")) == 6


def test_known_benchmarks_are_split_by_class_and_counted(package):
    """Counts that differ from the published ones are refused with both numbers."""
    catalogue = tfds("things", {"train": Counts(2, 3), "test": Counts(2, 3)})
    assert set(catalogue.select("train").labels) == {0, 1}
    with pytest.raises(ValueError, match="have 8,054 pictures of 98 classes; found 6 pictures of 4 classes"):
        open_dataset("tfds:cars196")


def test_what_a_builder_can_not_do_is_one_line(package, caplog):
    """A dead address, and a data set without labels."""
    with pytest.raises(ValueError, match=r"can't prepare 'dead': ConnectionError: 404 for http://gone$"):
        open_dataset("tfds:dead")
    assert caplog.messages == []  # urllib3's warnings would hide the line
    package.builder = lambda name: Builder(name, features=("image",))
    with pytest.raises(ValueError, match="must give image and label or class_id; it gives image"):
        open_dataset("tfds:unlabelled")


def test_without_the_package_the_extra_is_named(monkeypatch):
    """It is optional."""
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'rll_tf\[datasets\]'"):
        open_dataset("tfds:cars196")


def test_a_real_builder(tmp_path, monkeypatch):
    """One of the real package's, registered here: what it stores as JPEG comes out byte by byte."""
    package = pytest.importorskip(
        "tensorflow_datasets", reason="tensorflow-datasets is not installed: make test-all"
    )
    monkeypatch.setenv("RLL_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.setattr(package.core.constants, "DATA_DIR", str(tmp_path / "prepared"))
    file = tmp_path / "a.jpg"
    Image.fromarray(np.full([9, 7, 3], 99, np.uint8)).save(file)

    class ThreeThings(package.core.GeneratorBasedBuilder):
        """Pictures of two classes."""

        VERSION = package.core.Version("1.2.3")

        def _info(self):
            features = {
                "image": package.features.Image(encoding_format="jpeg"),
                "label": package.features.ClassLabel(names=["cup", "pot"]),
            }
            return self.dataset_info_from_configs(features=package.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(["pot", "cup"]),
                "test": self._generate_examples(["pot"]),
            }

        def _generate_examples(self, names):
            for key, name in enumerate(names):
                yield key, {"image": str(file), "label": name}

    catalogue = open_dataset("tfds:three_things")
    assert catalogue.class_names == ("cup", "pot")
    assert sorted(catalogue.labels.tolist()) == [0, 1, 1]
    assert {catalogue.encoded(index) for index in range(3)} == {file.read_bytes()}
    assert (tmp_path / "datasets/tfds/three_things-1.2.3/pictures.json").is_file()
    with pytest.raises(ValueError, match="can't prepare 'no_such': DatasetNotFoundError"):
        open_dataset("tfds:no_such")
