"""Weights from a file into a model, every tensor accounted for."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from rll_tf.models.embedding import BACKBONES
from rll_tf.models.inception_bn import HEADS, keras_name, weighted_layers
from rll_tf.models.weights.caffe_file import read_caffe
from rll_tf.models.weights.keras_file import read_keras
from rll_tf.models.weights.naming import (
    BIAS,
    CAFFE,
    FACTOR,
    GAMMA,
    KERNEL,
    MEAN,
    PYTORCH,
    VARIANCE,
    Naming,
    naming_of,
)
from rll_tf.models.weights.npz_file import read_npz
from rll_tf.models.weights.safetensors_file import read_safetensors
from rll_tf.models.weights.torch_file import read_torch

Tensors = Mapping[str, np.ndarray]
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
TELLING_LAYER, LAYOUT_OF_WIDTH = "inception_4c_pool_proj", {96: "caffe", 128: "pytorch"}
PUBLIC = (
    "Inception-BN's from ImageNet are public as googlenet_bn.caffemodel, and for layout=pytorch as "
    "bn_inception-52deb4733.pth of pretrained-models.pytorch"
)
# How many of a file's mistakes a message names.
NAMED = 5


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What `load_pretrained` did, and how pictures must be prepared for these weights.

    Args:
        origin: `"caffe"`, `"pytorch"` or `"keras"`.
        new_layers: the layers whose weights the file doesn't hold; they stayed as they were.
        unused: the file's tensors that belong to levels this model doesn't have.
        mean: subtracted from each channel of pixels of 0 to 255, in the network's order; None if the file
            doesn't tell.
        bgr: whether the network takes its channels blue first; None if the file doesn't tell.
        scale: what the difference is divided by; None if the file doesn't tell.
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
    | `.pth`, `.pt` | the PyTorch port's state dict, `pytorch` layout, trunk only |
    | `.safetensors`, `.npz` | the tensors of either by name, or a Keras model's variables by path |
    | `.keras`, `.weights.h5` | a Keras model with layers of the same names; its code isn't looked at |

    Classifiers are dropped. The new dense layers, whose outputs are the embeddings, may be missing: files
    from ImageNet don't hold them; nor do trunk-only files hold the heads. These stay as they are and are
    listed.

    Args:
        model: from `inception_bn` or `embedding_model`; any Keras model for Keras's own weights.
        path: the file; its suffix tells the format.

    Returns:
        What was loaded, and the preprocessing that belongs to it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the format is unknown, the file is damaged, its pickle asks for more than tensors, or a
            tensor is missing, is left over, has the wrong shape or isn't finite; each is named.
    """
    path = _existing(path)
    if path.name.endswith(KERAS_FORMATS):
        return _load_variables(model, read_keras(path, model), path)
    tensors, naming = _read(path)
    if naming is None:
        return _load_variables(model, tensors, path)
    return _load_inception(model, tensors, naming, path)


def pretrained_origin(path: str | Path) -> str:
    """Where a file's weights come from: `"caffe"`, `"pytorch"` or `"keras"`.

    Raises:
        FileNotFoundError, ValueError: as `load_pretrained`.
    """
    path = _existing(path)
    naming = None if path.name.endswith(KERAS_FORMATS) else _read(path)[1]
    return "keras" if naming is None else naming.origin


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights at {path}; {PUBLIC}")
    if path.suffix not in READERS and not path.name.endswith(KERAS_FORMATS):
        known = ", ".join([*READERS, *KERAS_FORMATS])
        raise ValueError(f"weights must be in a file of one of the formats {known}; got {path.name}")
    return path


def _read(path: Path) -> tuple[Tensors, Naming | None]:
    """The tensors of a file, and whose names they have."""
    tensors = READERS[path.suffix](path)
    if all(name.startswith(WRAPPER) for name in tensors):
        tensors = {name.removeprefix(WRAPPER): array for name, array in tensors.items()}
    known = {".caffemodel": CAFFE, ".pth": PYTORCH, ".pt": PYTORCH}
    return tensors, known.get(path.suffix) or naming_of(tensors)


def _load_inception(model: keras.Model, tensors: Tensors, naming: Naming, path: Path) -> Pretrained:
    """Weights of Inception-BN under another tool's names."""
    layers = {layer.name: layer for layer in model._flatten_layers(include_self=False) if layer.weights}
    values: dict[str, np.ndarray] = {}
    new_layers, unused, mistakes, missing, rest = [], [], [], [], set(tensors)
    for name, has_norm in weighted_layers():
        wanted = naming.tensors(name, has_norm)
        there = {role: tensors[wanted[role]] for role in wanted if wanted[role] in tensors}
        rest -= set(wanted.values())
        layer = layers.pop(keras_name(name), None)
        if layer is None:
            unused += [wanted[role] for role in there]
        elif not there and (_is_embedding(name) or (_is_head(name) and not naming.has_heads)):
            new_layers.append(layer.name)
        else:
            absent = [wanted[role] for role in wanted if role not in there and role not in naming.optional]
            wrong = _wrong(layer, has_norm, wanted, there)
            missing += absent
            mistakes += wrong
            if not absent and not wrong:
                values |= _convert(layer, there)
        if has_norm:
            layers.pop(f"{keras_name(name)}_bn", None)
    extra = [tensor for tensor in sorted(rest) if not naming.ignored(tensor)]
    mistakes += _in_turns(missing, extra, "network")
    mistakes += [f"the model's layer {name} is not Inception-BN's" for name in layers]
    _raise_mistakes(mistakes, path, _layout_hint(model, naming.layout) or _trunk_hint(missing, mistakes))
    new_norms = [f"{name}_bn" for name in new_layers]
    _assign(model, values, {*new_layers, *new_norms})
    return Pretrained(naming.origin, tuple(new_layers), tuple(unused), naming.mean, bgr=True, scale=1.0)


def _is_embedding(name: str) -> bool:
    return name in {head.embedding for head in HEADS.values()}


def _is_head(name: str) -> bool:
    return name in {part for head in HEADS.values() for part in head}


def _wrong(layer: keras.Layer, has_norm: bool, wanted: dict[str, str], there: Tensors) -> list[str]:
    """What is wrong with a layer's tensors in the file."""
    *kernel_px, inputs, outputs = layer.kernel.shape
    shapes = dict.fromkeys(wanted, (outputs,))
    shapes |= {KERNEL: (outputs, inputs, *kernel_px), FACTOR: (1,)}
    mistakes = []
    for role, array in there.items():
        mistake = _mistake(array, shapes[role], padded=True)
        if mistake:
            mistakes.append(f"{wanted[role]} {mistake}")
    if BIAS in there and not has_norm:
        mistakes.append(f"{wanted[BIAS]} is not part of the network")
    return mistakes


def _mistake(array: np.ndarray, shape: tuple[int, ...], padded: bool = False) -> str:
    """What is wrong with a tensor, if anything. Where `padded`, sides of 1 may have been added to it."""
    got = array.shape
    if padded and len(shape) == 1:
        # Batch norm's numbers come as [1, C] and [1, C, 1, 1] too.
        got = tuple(side for side in got if side != 1) or (1,)
    elif padded:
        # Old .caffemodel files fill up to four dimensions from the left.
        while len(got) > len(shape) and got[0] == 1:
            got = got[1:]
    if got != shape:
        return f"must have shape {shape}; got {array.shape}"
    if array.dtype.kind not in "fiub":
        return f"must hold real numbers; got dtype {array.dtype}"
    with np.errstate(over="ignore"):
        count = np.count_nonzero(~np.isfinite(array.astype(np.float32)))
    return f"must hold finite float32 numbers; got {count} of {array.size} that are not" if count else ""


def _convert(layer: keras.Layer, there: Tensors) -> dict[str, np.ndarray]:
    """A layer's tensors, with its batch norm's, as `{variable's path: value}`."""
    tensors = {role: np.asarray(array, np.float64) for role, array in there.items()}
    kernel = tensors.pop(KERNEL)
    shape = layer.kernel.shape
    if len(shape) == 4:
        kernel = kernel.reshape(shape[::-1][:2] + shape[:2]).transpose(2, 3, 1, 0)
    else:
        kernel = _dense_kernel(layer, kernel.reshape(shape[::-1]))
    values = {layer.kernel.path: kernel}
    if GAMMA not in tensors:
        return values
    tensors = {role: array.ravel() for role, array in tensors.items()}
    bias, factor = tensors.pop(BIAS, 0.0), tensors.pop(FACTOR, np.ones(1)).item()
    # Caffe stores a sum of statistics and the sum of their weights; it takes 0 to mean no statistics yet.
    inverse = 1 / factor if factor else 0.0
    tensors[MEAN], tensors[VARIANCE] = tensors[MEAN] * inverse, tensors[VARIANCE] * inverse
    # (x + bias − mean) = x − (mean − bias)
    tensors[MEAN] = tensors[MEAN] - bias
    return values | {f"{layer.name}_bn/{role}": array for role, array in tensors.items()}


def _dense_kernel(layer: keras.Layer, kernel: np.ndarray) -> np.ndarray:
    """From [out, in] to [in, out]; what was flattened from C×h×w there is flattened from h×w×C here."""
    source = layer._inbound_nodes[0].input_tensors[0]._keras_history.operation
    if isinstance(source, keras.layers.Flatten):
        height, width, channels = source.input.shape[1:]
        kernel = kernel.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(kernel), -1)
    return kernel.T


def _in_turns(missing: Iterable[str], extra: Iterable[str], whole: str) -> list[str]:
    """One missing, one extra: where a layer only has another name, both of its names are seen."""
    pairs = itertools.zip_longest(
        [f"{name} is missing" for name in missing], [f"{name} is not part of the {whole}" for name in extra]
    )
    return [mistake for pair in pairs for mistake in pair if mistake]


def _trunk_hint(missing: Sequence[str], mistakes: Sequence[str]) -> str:
    """Advice for a file that lacks the low and mid heads, and nothing else."""
    heads = tuple(keras_name(part) for head in HEADS.values() for part in (head.conv, head.dense) if part)
    if len(missing) < len(mistakes) or not all(keras_name(name).startswith(heads) for name in missing):
        return ""
    return ' The file lacks only heads: levels=["high"] needs none of them.'


def _layout_hint(model: keras.Model, layout: str | None) -> str:
    """That the file's layout isn't the model's, if so."""
    widths = {
        layer.name: layer.kernel.shape[-1] for layer in model._flatten_layers() if hasattr(layer, "kernel")
    }
    wanted = LAYOUT_OF_WIDTH.get(widths.get(TELLING_LAYER, 0), layout)
    if layout in (None, wanted):
        return ""
    return f" The file is of layout {layout!r}, the model is of layout {wanted!r}."


def _load_variables(model: keras.Model, tensors: Tensors, path: Path) -> Pretrained:
    """A Keras model's variables by their paths."""
    new = {layer for parts in BACKBONES.values() for layers in parts.new_layers.values() for layer in layers}
    network = {keras_name(name) for name, _ in weighted_layers()}
    mistakes, missing, new_layers = [], [], []
    wanted = {variable.path: variable for variable in model.weights}
    for name, variable in wanted.items():
        layer = name.partition("/")[0]
        if name in tensors:
            mistake = _mistake(tensors[name], tuple(variable.shape))
            mistakes += [f"{name} {mistake}"] if mistake else []
        elif layer in new:
            new_layers.append(layer)
        else:
            missing.append(name)
    unused: list[str] = []
    extra: list[str] = []
    is_inception = bool(network & {layer.name for layer in model._flatten_layers()})
    for name in sorted(set(tensors) - set(wanted)):
        layer = name.partition("/")[0].removesuffix("_bn")
        (unused if is_inception and layer in network else extra).append(name)
    mistakes += _in_turns(missing, extra, "model")
    telling = tensors.get(f"{TELLING_LAYER}/kernel", np.empty(0))
    layout = LAYOUT_OF_WIDTH.get(telling.shape[-1])
    _raise_mistakes(mistakes, path, _layout_hint(model, layout) or _trunk_hint(missing, mistakes))
    _assign(model, {name: tensors[name] for name in wanted if name in tensors}, new_layers)
    return Pretrained("keras", tuple(new_layers), tuple(unused))


def _raise_mistakes(mistakes: Sequence[str], path: Path, hint: str) -> None:
    if mistakes:
        more = f"; and {len(mistakes) - NAMED} more" if len(mistakes) > NAMED else ""
        raise ValueError(f"{path} doesn't fit the model: {'; '.join(mistakes[:NAMED])}{more}.{hint}")


def _assign(model: keras.Model, values: Tensors, new_layers: Sequence[str] | set[str]) -> None:
    """Set every variable but those of new layers."""
    variables = {variable.path: variable for variable in model.weights}
    left = {name for name in variables if name not in values and name.partition("/")[0] not in new_layers}
    if left or set(values) - set(variables):
        raise AssertionError(
            f"variables without values: {left}; values without: {set(values) - set(variables)}"
        )
    for name, value in values.items():
        variables[name].assign(value)
