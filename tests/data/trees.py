"""Small trees in the benchmarks' official layouts, written anew for each test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def picture(file: Path, value: int = 0) -> None:
    """Write a small picture."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (value % 256, 40, 90)).save(file)


def lines(file: Path, rows: list[str]) -> None:
    """Write a list."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(row + "\n" for row in rows))


def write_cub200(root: Path, sizes: tuple[int, ...] = (2, 3, 1, 2), pictures: bool = True) -> Path:
    """Classes of these sizes, ids from 1; the lists are not in the order of the ids."""
    files = [
        f"{label:03d}.Bird_{label}/Bird_{label}_{number:04d}.jpg"
        for label, size in enumerate(sizes, 1)
        for number in range(size)
    ]
    top = root / "CUB_200_2011"
    numbered = list(enumerate(files, 1))
    lines(top / "images.txt", [f"{number} {file}" for number, file in reversed(numbered)])
    lines(top / "image_class_labels.txt", [f"{number} {int(file[:3])}" for number, file in numbered])
    for number, file in numbered:
        if pictures:
            picture(top / "images" / file, number)
        else:
            (top / "images" / file).parent.mkdir(parents=True, exist_ok=True)
            (top / "images" / file).touch()
    return root


def annotations(fields: dict[str, list]) -> np.ndarray:
    """A MATLAB struct array."""
    kinds = [(name, object) for name in fields]
    array = np.empty((1, len(next(iter(fields.values())))), kinds)
    for name, values in fields.items():
        array[name][0] = values
    return array


def write_cars196(root: Path, sizes: tuple[int, ...] = (2, 3, 1, 2), devkit: bool = False) -> Path:
    """Either official layout: one archive with cars_annos.mat, or the devkit with two; compressed."""
    classes = [label for label, size in enumerate(sizes, 1) for _ in range(size)]
    names = np.array([f"Car {label}" for label in range(1, len(sizes) + 1)], object)
    if not devkit:
        files = [f"car_ims/{number:06d}.jpg" for number in range(1, len(classes) + 1)]
        root.mkdir(parents=True, exist_ok=True)
        fields = {"relative_im_path": files, "bbox_x1": [1] * len(files), "class": classes}
        values = {"annotations": annotations(fields), "class_names": names}
        savemat(root / "cars_annos.mat", values, do_compression=True)
    else:
        files = []
        (root / "devkit").mkdir(parents=True, exist_ok=True)
        # Every second picture is of the classification benchmark's other half.
        for start, half, name in [(0, "train", "train_annos"), (1, "test", "test_annos_withlabels")]:
            part = classes[start::2]
            short = [f"{number:05d}.jpg" for number in range(1, len(part) + 1)]
            savemat(
                root / "devkit" / f"cars_{name}.mat",
                {"annotations": annotations({"class": part, "fname": short})},
                do_compression=True,
            )
            files += [f"cars_{half}/{file}" for file in short]
        savemat(root / "devkit" / "cars_meta.mat", {"class_names": names}, do_compression=True)
    for number, file in enumerate(files):
        picture(root / file, number)
    return root


def write_sop(root: Path, train: tuple[int, ...] = (2, 3), test: tuple[int, ...] = (1, 2, 2)) -> Path:
    """Offers of these sizes; class ids from 1, the tests' after training's."""
    top = root / "Stanford_Online_Products"
    number = label = 0
    for name, sizes in [("train", train), ("test", test)]:
        rows = ["image_id class_id super_class_id path"]
        for size in sizes:
            label += 1
            for i in range(size):
                number += 1
                file = f"{'bicycle' if label % 2 else 'chair'}_final/{11000 + label}_{i}.JPG"
                rows.append(f"{number} {label} 1 {file}")
                picture(top / file, number)
        lines(top / f"Ebay_{name}.txt", rows)
    return root


def write_inshop(root: Path, top: str = "") -> Path:
    """Two garments to train on, three to seek: each once or twice in the query and in the gallery."""
    parts = {
        1: "train train train",
        5: "train",
        2: "query gallery",
        3: "gallery query query",
        7: "gallery query",
    }
    rows = []
    for item, words in parts.items():
        for number, part in enumerate(words.split()):
            file = f"img/WOMEN/Dresses/id_{item:08d}/{number:02d}_1_front.jpg"
            rows.append(f"{file:70s} id_{item:08d} {part}")
            picture(root / top / file, 10 * item + number)
    lines(root / "Eval" / "list_eval_partition.txt", [str(len(rows)), "image_name item_id status", *rows])
    return root
