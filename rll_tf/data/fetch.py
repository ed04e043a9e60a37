"""A benchmark from its known sources to its folder, or instructions on what to put there by hand."""

from __future__ import annotations

import dataclasses
import gzip
import os
import platform
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from rll_tf.data.download import DownloadError, Progress, RemoteFile, download


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a benchmark comes from.

    Args:
        files: what to fetch; archives are unpacked. Empty where the publisher sends them on request only.
        by_hand: where else a person finds them, and what the data set's folder must then hold.
    """

    files: tuple[RemoteFile, ...]
    by_hand: str


def _file(md5: str, *urls: str) -> RemoteFile:
    return RemoteFile(urls[0].rpartition("/")[2], urls, md5)


_CUB = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
_CARS = "https://ai.stanford.edu/~jkrause/"
_SOP = "cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip"

# Tried one after the other; checksums as published with torchvision and other readers of these archives.
SOURCES = {
    "cub200": Source(
        (_file("97eceeb196236b17998738112f37df78", _CUB, f"{_CUB}?download=1"),),
        "get CUB_200_2011.tgz (CaltechDATA, record 65de6-vp158; Kaggle has copies named cub2002011) and "
        "unpack it in {folder}, which gives {folder}/CUB_200_2011/images.txt",
    ),
    "cars196": Source(
        (
            _file("c3b158d763b6e2245038c8ad08e45376", f"{_CARS}cars/car_devkit.tgz"),
            _file("b0a2b23655a3edd16d84508592a98d10", f"{_CARS}car196/cars_test_annos_withlabels.mat"),
            _file("065e5b463ae28d29e77c1b4b166cfe61", f"{_CARS}car196/cars_train.tgz"),
            _file("4ce7ebf6a94d07f1952d94dd34c4d501", f"{_CARS}car196/cars_test.tgz"),
        ),
        "the official address is gone; get car_ims.tgz and cars_annos.mat, or car_devkit.tgz, cars_train.tgz,"
        " cars_test.tgz and cars_test_annos_withlabels.mat (Kaggle has copies named stanford-cars-dataset), "
        "unpack the archives in {folder} and put the other file there, which gives {folder}/cars_annos.mat "
        "and {folder}/car_ims/000001.jpg, or {folder}/devkit/cars_train_annos.mat and "
        "{folder}/cars_train/00001.jpg",
    ),
    "sop": Source(
        (_file("7f73d41a2f44250d4779881525aea32e", f"http://ftp.{_SOP}", f"ftp://{_SOP}"),),
        "get Stanford_Online_Products.zip (cvgl.stanford.edu/projects/lifted_struct) and unpack it in "
        "{folder}, which gives {folder}/Stanford_Online_Products/Ebay_train.txt",
    ),
    "inshop": Source(
        (),
        "it is given out by hand only: ask for the In-shop Clothes Retrieval Benchmark of DeepFashion at "
        "mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html, put list_eval_partition.txt into "
        "{folder}/Eval and unpack img.zip in {folder}, which gives {folder}/img/WOMEN",
    ),
}


def fetch(
    name: str,
    folder: Path,
    progress: Callable[[RemoteFile], Progress] | None = None,
) -> Path:
    """Fetch a benchmark's files and unpack them into its folder.

    Archives are kept in `folder/.downloads` until all of them are unpacked, so an interrupted fetch is
    resumed. Each archive appears unpacked in one move.

    Args:
        name: a key of `SOURCES`.
        folder: the data set's.
        progress: gives for each file what to call as it arrives, see `download`.

    Returns:
        `folder`.

    Raises:
        ValueError: there is nothing to fetch under this name.
        DownloadError: a file can't be fetched or unpacked; the message says what to put where by hand.
        OSError: the folder can't be written.
    """
    if name not in SOURCES:
        raise ValueError(f"only {', '.join(SOURCES)} can be fetched, by their bare names; got {name!r}")
    source = SOURCES[name]
    by_hand = source.by_hand.format(folder=folder)
    if not source.files:
        raise DownloadError(f"{name} can't be fetched: {by_hand}")
    if not hasattr(tarfile, "data_filter"):
        raise DownloadError(
            "to unpack safely, Python must be 3.10.12, 3.11.4 or newer; this is "
            f"{platform.python_version()}. By hand: {by_hand}"
        )
    downloads = folder / ".downloads"
    archives = []
    for file in source.files:
        try:
            archives.append(download(file, downloads, progress(file) if progress else None))
        except DownloadError as error:
            raise DownloadError(f"{file.name} can't be fetched ({error}). By hand: {by_hand}") from error
    for archive in archives:
        try:
            _unpack(archive, folder)
        except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
            archive.unlink()
            raise DownloadError(f"{archive.name} can't be unpacked ({error}). By hand: {by_hand}") from error
    shutil.rmtree(downloads)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack into a scratch folder, then move every entry of the archive's top level to `folder`."""
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as scratch:
        if archive.suffix == ".tgz":
            with tarfile.open(archive, "r:gz") as tar:
                tar.extractall(scratch, filter="data")  # an error for what would be written outside
        elif archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(scratch)
        else:
            shutil.copy(archive, scratch)
        for entry in sorted(Path(scratch).iterdir()):
            target = folder / entry.name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            os.replace(entry, target)
