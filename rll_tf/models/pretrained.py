"""Weights from a file into a model, every tensor accounted for."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rll_tf.models.backbone import new_layers
from rll_tf.models.embedding import BACKBONES
from rll_tf.models.inception_bn import keras_name, weighted_layers
from rll_tf.models.proxies import is_similarity
from rll_tf.models.weights.array_file import read_npz, read_safetensors
from rll_tf.models.weights.caffe_file import read_caffe
from rll_tf.models.weights.keras_file import read_keras
from rll_tf.models.weights.naming import CAFFE, LITE, PYTORCH, Naming, naming_of
from rll_tf.models.weights.parts import Part, Tensors, keras_parts, network_parts
from rll_tf.models.weights.torch_file import read_torch

READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".caffemodel": read_caffe,
    ".pth": read_torch,
    ".pt": read_torch,
    ".safetensors": read_safetensors,
    ".npz": read_npz,
}
KERAS_FORMATS = (".keras", ".weights.h5")
# What PyTorch's DataParallel puts before every name.
WRAPPER = "module."
# The first layer in which the layouts differ, and its channels in each.
FIRST_DIFFERENCE, LAYOUT_OF_WIDTH = "inception_4c_pool_proj", {96: "caffe", 128: "pytorch"}
PUBLIC = (
    "Inception-BN's from ImageNet are public as googlenet_bn.caffemodel, and for layout=pytorch as "
    "bn_inception-52deb4733.pth of pretrained-models.pytorch"
)
# The layers that a file under Keras's names may lack.
NEW_LAYERS = frozenset(
    layer
    for levels in (new_layers(), *(row.new_layers for row in BACKBONES.values()))
    for layers in levels.values()
    for layer in layers
)
# How many of a file's mistakes a message names.
NAMED = 5


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What `load_pretrained` did, and how pictures must be prepared for these weights.

    Args:
        origin: `"caffe"`, `"pytorch"`, `"efficientnet_lite"` or `"keras"`.
        new_layers: the layers whose weights the file doesn't hold; they stayed as they were.
        unused: the file's tensors that belong to levels this model doesn't have.
        mean: subtracted from each channel of pixels of 0 to 255, in the network's order; None if unknown.
        bgr: whether the network takes its channels blue first; None if unknown.
        scale: what the difference is divided by; None if unknown.
    """

    origin: str
    new_layers: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    mean: tuple[float, float, float] | None = None
    bgr: bool | None = None
    scale: float | None = None


def load_pretrained(model: keras.Model, path: str | Path) -> Pretrained:
    """Set a model's weights from a file; either all of them, or none if anything is wrong.

    | file | what it holds |
    |---|---|
    | `.caffemodel` | Inception-BN in the `caffe` layout, with the auxiliary heads |
    | `.pth`, `.pt` | the PyTorch port's state dict, `pytorch` layout, trunk only; or EfficientNet-Lite's |
    | `.safetensors`, `.npz` | the tensors of any of these by name, or a Keras model's variables by path |
    | `.keras`, `.weights.h5` | a Keras model with layers of the same names; its code isn't read |

    Classifiers are dropped. The new dense layers, whose outputs are the embeddings, may be missing: files
    from ImageNet don't hold them; nor do trunk-only files hold the heads. These stay as they are and are
    listed.

    Args:
        model: from `inception_bn` or `embedding_model`; any Keras model for Keras's own weights.
        path: the file; its suffix says the format.

    Returns:
        What was loaded, and the preprocessing that belongs to it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the format is unknown, the file is damaged, its pickle names more than tensors, or a
            tensor is missing, is left over, has the wrong shape or isn't finite; each is named.
    """
    path = _existing(path)
    tensors, naming = _read(path, model)
    parts = keras_parts(model, NEW_LAYERS) if naming is None else network_parts(model, naming)
    values, lacked, missing, mistakes = _match(parts, tensors)
    rest = sorted(set(tensors) - {name for part in parts for name in part.names.values()})
    rest = [name for name in rest if naming is None or not naming.ignored(name)]
    unused = [name for name in rest if _is_other_level(name, model, naming)]
    extra = [name for name in rest if name not in unused]
    mistakes += _alternating(missing, extra)
    if naming is not None:
        others = _other_layers(model, parts)
        mistakes += [f"the model's layer {layer} is not {naming.network}'s" for layer in others]
    if mistakes:
        hint = _layout_hint(model, tensors, naming) or _trunk_hint(missing, mistakes)
        more = f"; and {len(mistakes) - NAMED} more" if len(mistakes) > NAMED else ""
        raise ValueError(f"{path} doesn't fit the model: {'; '.join(mistakes[:NAMED])}{more}.{hint}")
    variables = {variable.path: variable for variable in model.weights}
    for name, value in values.items():
        variables[name].assign(np.reshape(value, variables[name].shape))
    if naming is None:
        return Pretrained("keras", lacked, tuple(unused))
    return Pretrained(naming.origin, lacked, tuple(unused), naming.mean, naming.bgr, naming.scale)


def pretrained_origin(path: str | Path) -> str:
    """Where a file's weights come from, as `Pretrained.origin`.

    Raises:
        FileNotFoundError, ValueError: as `load_pretrained`.
    """
    _, naming = _read(_existing(path), keras.Sequential())
    return "keras" if naming is None else naming.origin


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights at {path}; {PUBLIC}")
    if path.suffix not in READERS and not path.name.endswith(KERAS_FORMATS):
        known = ", ".join([*READERS, *KERAS_FORMATS])
        raise ValueError(f"weights must be in a file of one of the formats {known}; got {path.name}")
    return path


def _read(path: Path, model: keras.Model) -> tuple[Tensors, Naming | None]:
    """The tensors of a file, and whose names they have; None for a Keras model's own."""
    if path.name.endswith(KERAS_FORMATS):
        return read_keras(path, model), None
    tensors = READERS[path.suffix](path)
    if all(name.startswith(WRAPPER) for name in tensors):
        tensors = {name.removeprefix(WRAPPER): array for name, array in tensors.items()}
    known = {".caffemodel": CAFFE, ".pth": PYTORCH, ".pt": PYTORCH}
    naming = naming_of(tensors) or known.get(path.suffix)
    if naming is LITE:
        _check_hash(path)
    return tensors, naming


def _check_hash(path: Path) -> None:
    """Compare the file's SHA-256 with the digits that PyTorch's habit puts at the end of its name."""
    named = re.search(r"-([0-9a-f]{8,64})$", path.stem)
    if named and not hashlib.sha256(path.read_bytes()).hexdigest().startswith(named[1]):
        raise ValueError(f"{path} is damaged: its SHA-256 must begin with {named[1]}")


def _match(
    parts: Iterable[Part], tensors: Tensors
) -> tuple[dict[str, np.ndarray], tuple[str, ...], list[str], list[str]]:
    """The variables' values, the new layers, the names of missing tensors, and what is wrong with others."""
    values: dict[str, np.ndarray] = {}
    new_layers, missing, mistakes = [], [], []
    for part in parts:
        found = {role: tensors[name] for role, name in part.names.items() if name in tensors}
        if not found and part.may_be_new:
            new_layers.append(part.layer)
            continue
        absent = [name for role, name in part.names.items() if role not in {*found, *part.optional}]
        checked = {part.names[role]: _mistake(array, part.shapes[role]) for role, array in found.items()}
        wrong = [f"{name} {mistake}" for name, mistake in checked.items() if mistake]
        missing += absent
        mistakes += wrong
        if not absent and not wrong:
            values |= part.convert(found)
    return values, tuple(new_layers), missing, mistakes


def _mistake(array: np.ndarray, shape: tuple[int, ...]) -> str:
    """What is wrong with a tensor, if anything. Files pad shapes with sides of 1, in front or behind."""
    if array.dtype.kind not in "fiub":
        return f"must hold real numbers; got dtype {array.dtype}"
    if [side for side in array.shape if side != 1] != [side for side in shape if side != 1]:
        return f"must have shape {shape}; got {array.shape}"
    with np.errstate(over="ignore"):
        count = np.count_nonzero(~np.isfinite(array.astype(np.float32)))
    return f"must hold finite float32 numbers; got {count} of {array.size} that are not" if count else ""


def _is_other_level(tensor: str, model: keras.Model, naming: Naming | None) -> bool:
    """Whether a tensor belongs to a part of the network that the model, a smaller one, doesn't have."""
    if naming is not None:
        return any(tensor in naming.tensors(*layer).values() for layer in naming.layers)
    if is_similarity(tensor.partition("/")[0]):
        return True  # proxies, of the classes of another training
    network = {keras_name(name) for name, _ in weighted_layers()}
    is_inception = any(layer.name in network for layer in model.layers)
    return is_inception and tensor.partition("/")[0].removesuffix("_bn") in network


def _other_layers(model: keras.Model, parts: Iterable[Part]) -> list[str]:
    """The layers that nothing of the file is for."""
    known = {name for part in parts for name in (part.layer, f"{part.layer}_bn")}
    return [layer.name for layer in model.layers if layer.weights and layer.name not in known]


def _alternating(missing: Iterable[str], extra: Iterable[str]) -> list[str]:
    """One missing, one extra: where a layer only has another name, both of its names are seen."""
    pairs = itertools.zip_longest(
        [f"{name} is missing" for name in missing], [f"{name} is not part of the network" for name in extra]
    )
    return [mistake for pair in pairs for mistake in pair if mistake]


def _trunk_hint(missing: Sequence[str], mistakes: Sequence[str]) -> str:
    """Advice for a file that lacks the low and mid heads, and nothing else."""
    if len(missing) < len(mistakes) or not all(name.startswith(("loss1", "loss2")) for name in missing):
        return ""
    return ' The file lacks only heads: levels=["high"] needs none of them.'


def _layout_hint(model: keras.Model, tensors: Tensors, naming: Naming | None) -> str:
    """That the file's layout isn't the model's, if so."""
    variables = {variable.path: variable for variable in model.weights}
    ours, theirs = _layout(variables), naming.origin if naming else _layout(tensors)
    if None in (ours, theirs) or ours == theirs:
        return ""
    return f" The file is of layout {theirs!r}, the model is of layout {ours!r}."


def _layout(tensors: Mapping[str, Any]) -> str | None:
    """The layout that a Keras model's variables, by their paths, are of; None if they don't say."""
    kernel = tensors.get(f"{FIRST_DIFFERENCE}/kernel")
    return None if kernel is None else LAYOUT_OF_WIDTH.get(kernel.shape[-1])
