"""The versions of an exported model: which of them are served, by which label, and how to go back.

`DIR/models.pbtxt`, TensorFlow Serving's `ModelServerConfig`, says which versions are loaded and what their
labels are; whatever changes the folder writes it again, and a server that polls it follows. The newest two
are loaded, so that a call that began with one can end with it, and a rollback loads nothing; labelled ones
are loaded too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

CONFIG_FILE = "models.pbtxt"
MANIFEST_FILE = Path("assets.extra", "sha256.json")
# What compose.yaml and kubernetes.yaml mount the folder at; `rll serve` puts its own in their place.
NAME, BASE_PATH = "rll_tf", "/models/rll_tf"
LOADED = 2
WITHDRAWN = "withdrawn-"
LABEL = re.compile(r"[A-Za-z0-9_.-]+")


def versions_of(folder: Path) -> list[int]:
    """The numbers of the versions in a folder, ascending."""
    return sorted(
        int(file.parent.name) for file in folder.glob("*/saved_model.pb") if file.parent.name.isdigit()
    )


def served_versions(folder: Path) -> list[int]:
    """As `versions_of`, of a folder that must hold some.

    Raises:
        FileNotFoundError: it holds none, is none, or is itself a version.
    """
    if (folder / "saved_model.pb").is_file():
        raise FileNotFoundError(
            f"MODEL must be a folder of versions; {folder} is a version: give {folder.parent}"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"an exported model must be a folder; {folder} is none")
    versions = versions_of(folder)
    if not versions:
        raise FileNotFoundError(
            f"{folder} holds no exported model: it has no <version>/saved_model.pb; "
            "rll export RUN --to FOLDER makes one"
        )
    return versions


def labels_of(folder: Path) -> dict[str, int]:
    """Label -> version."""
    file = folder / CONFIG_FILE
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    found = re.findall(r'version_labels \{ key: "([^"]+)" value: (\d+) \}', text)
    return {label: int(version) for label, version in found}


def loaded(versions: Iterable[int], labels: Mapping[str, int]) -> list[int]:
    """Those of a folder's versions that are served, ascending: the newest, and the labelled."""
    there = sorted(versions)
    return sorted({*there[-LOADED:], *labels.values()} & set(there))


def server_config(folder: Path, name: str = NAME, base_path: str = BASE_PATH) -> str:
    """A `ModelServerConfig` for the versions and the labels of a folder."""
    return _config(folder, labels_of(folder), name, base_path)


def check_label(label: str) -> None:
    """Raise ValueError where a label can't be one."""
    if not LABEL.fullmatch(label):
        raise ValueError(f"a label must be letters, digits and ._-; got {label!r}")


def set_label(folder: Path, label: str, version: int) -> None:
    """Let a label mean a version from now on.

    Raises:
        ValueError: the label can't be one, or there is no such version.
        FileNotFoundError: see `served_versions`.
    """
    check_label(label)
    _check_version(folder, version)
    _write(folder, {**labels_of(folder), label: version})


def write_config(folder: Path) -> None:
    """Write `models.pbtxt` again, after a version came."""
    _write(folder, labels_of(folder))


def replace_config(file: Path, text: str) -> None:
    """Write a configuration whole or not at all, readable by all."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")  # exports may end at the same time
    partial.write_text(text, encoding="utf-8")
    partial.chmod(0o644)
    os.replace(partial, file)


def roll_back(folder: Path) -> tuple[int, int]:
    """Withdraw the newest version: its folder stays under a name that servers pass over.

    Its labels go to the one before. A later export takes a number above both.

    Returns:
        The version that was withdrawn, and the one that is served now.

    Raises:
        ValueError: there is no version before it.
        FileNotFoundError: see `served_versions`.
    """
    versions = served_versions(folder)
    if len(versions) < 2:
        raise ValueError(
            f"{folder} must hold 2 versions to go back to the one before; it holds {len(versions)}"
        )
    before, newest = versions[-2:]
    labels = {label: min(version, before) for label, version in labels_of(folder).items()}
    (folder / str(newest)).rename(folder / f"{WITHDRAWN}{newest}")
    _write(folder, labels)
    return newest, before


def keep_last(folder: Path, count: int) -> list[int]:
    """Delete all but the newest `count` versions and the labelled ones: the numbers of the deleted."""
    labelled = labels_of(folder).values()
    old = [version for version in versions_of(folder)[:-count] if version not in labelled]
    for version in old:
        shutil.rmtree(folder / str(version))
    return old


def next_number(folder: Path) -> int:
    """The number above all versions, those withdrawn too."""
    names = [entry.name.removeprefix(WITHDRAWN) for entry in folder.iterdir()]
    return 1 + max((int(name) for name in names if name.isdigit()), default=0)


def write_manifest(version: Path) -> None:
    """Write the SHA-256 of every file of a version."""
    sums = {str(path.relative_to(version)): _sha256(path) for path in _files(version)}
    (version / MANIFEST_FILE).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")


def verify_manifest(version: Path) -> bool:
    """Whether there is a manifest; exports of before have none.

    Raises:
        ValueError: a file differs from the manifest, is missing, or is not in it.
    """
    file = version / MANIFEST_FILE
    if not file.is_file():
        return False
    try:
        wanted: Mapping[str, str] = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} must be a manifest: {error}") from error
    there = {str(path.relative_to(version)): path for path in _files(version)}
    for name in sorted({*wanted, *there}):
        if name not in there or name not in wanted or _sha256(there[name]) != wanted[name]:
            what = "is missing" if name not in there else "is not in it" if name not in wanted else "differs"
            raise ValueError(f"{version} must be as it was exported: by {MANIFEST_FILE}, {name} {what}")
    return True


def _files(version: Path) -> list[Path]:
    manifest = version / MANIFEST_FILE
    return sorted(path for path in version.rglob("*") if path.is_file() and path != manifest)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _check_version(folder: Path, version: int) -> None:
    versions = served_versions(folder)
    if version not in versions:
        raise ValueError(f"{folder} must hold version {version}; it holds {', '.join(map(str, versions))}")


def _write(folder: Path, labels: Mapping[str, int]) -> None:
    replace_config(folder / CONFIG_FILE, _config(folder, labels, NAME, BASE_PATH))


def _config(folder: Path, labels: Mapping[str, int], name: str, base_path: str) -> str:
    served = loaded(versions_of(folder), labels)
    policy = f"latest {{ num_versions: {LOADED} }}"
    if len(served) > LOADED:
        policy = f"specific {{ {' '.join(f'versions: {version}' for version in served)} }}"
    lines = [f'    version_labels {{ key: "{label}" value: {version} }}' for label, version in labels.items()]
    return "\n".join([
        "# Written by rll export, rll label and rll rollback: tensorflow_model_server --model_config_file=…",
        "model_config_list {",
        "  config {",
        f'    name: "{name}"',
        f'    base_path: "{base_path}"',
        '    model_platform: "tensorflow"',
        f"    model_version_policy {{ {policy} }}",
        *lines,
        "  }",
        "}",
        "",
    ])  # fmt: skip
