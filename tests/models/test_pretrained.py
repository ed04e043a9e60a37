"""Weight files: every format, every tensor accounted for, nothing run."""

import io
import pickle
import zipfile

import h5py
import keras
import numpy as np
import pytest

from rll_tf.models import embedding_model, load_pretrained
from rll_tf.models.inception_bn import weighted_layers
from rll_tf.models.weights.naming import CAFFE, PYTORCH
from tests.models import reference

NEW = ("loss1_fc_bn_sc_fc",)


@pytest.fixture(scope="module")
def low():
    """A small model: trunk up to 3c, the low head."""
    return embedding_model("inception_bn", ["low"], 8, input_shape=(75, 75, 3))


@pytest.fixture(scope="module")
def fresh(low):
    """Its weights before any loading."""
    return [weight.numpy() for weight in low.weights]


@pytest.fixture(scope="module")
def other(low):
    """A second model of the same layers."""
    return keras.models.clone_model(low)


@pytest.fixture(scope="module")
def high():
    """The trunk and the high head, in each layout."""
    return {
        layout: embedding_model("inception_bn", ["high"], 8, layout=layout, input_shape=(75, 75, 3))
        for layout in ("caffe", "pytorch")
    }


@pytest.fixture
def model(low, fresh):
    """The model with these weights."""
    for weight, value in zip(low.weights, fresh, strict=True):
        weight.assign(value)
    return low


def tensors_of(model, naming):
    """Random tensors for every layer of the model under an origin's names."""
    rng, tensors = np.random.default_rng(1), {}
    layers = {layer.name: layer for layer in model.layers}
    for name, has_norm in weighted_layers():
        layer = layers.get(name.replace("/", "_"))
        if layer is None or (name.startswith("loss") and naming is PYTORCH):
            continue
        names = naming.tensors(name, has_norm)
        *sides, inputs, outputs = layer.kernel.shape
        tensors[names.pop("kernel")] = rng.normal(size=(outputs, inputs, *sides)).astype(np.float32)
        if naming is CAFFE:
            names.pop("bias", None)
        for role, tensor in names.items():
            size = 1 if role == "factor" else outputs
            tensors[tensor] = rng.uniform(1, 2, size).astype(np.float32)
    return tensors


def blobs(tensors):
    """`layer/number` -> layer: [blobs]."""
    layers = {}
    for name in sorted(tensors):
        layers.setdefault(name.rpartition("/")[0], []).append(tensors[name])
    return layers


def write(file, tensors):
    """Write tensors in the format that the file's name asks for."""
    if file.suffix == ".caffemodel":
        reference.write_caffemodel(file, blobs(tensors), old="old" in file.name)
    elif file.suffix == ".pth":
        reference.write_pth(file, tensors, legacy="old" in file.name)
    elif file.suffix == ".safetensors":
        reference.write_safetensors(file, tensors)
    else:
        np.savez(file, **tensors)
    return file


def save(model, file):
    """Write a model's own weights in the format that the file's name asks for."""
    if file.suffix == ".npz":
        np.savez(file, **{weight.path: weight for weight in model.weights})
    elif file.suffix == ".keras":
        model.save(file)
    else:
        model.save_weights(file)


def assert_unchanged(model, fresh):
    """No weight has moved."""
    for weight, value in zip(model.weights, fresh, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize("name", ["new.caffemodel", "old.caffemodel", "a.npz", "a.safetensors"])
def test_caffes_tensors_in_every_format(name, model, tmp_path):
    """Kernels are transposed, statistics divided by their factor, the head's columns put in this order."""
    tensors = tensors_of(model, CAFFE)
    result = load_pretrained(model, write(tmp_path / name, tensors))
    assert (result.origin, result.mean, result.bgr, result.scale) == ("caffe", CAFFE.mean, True, 1)
    assert result.new_layers == ()
    layer, norm = model.get_layer("inception_3b_3x3"), model.get_layer("inception_3b_3x3_bn")
    np.testing.assert_array_equal(layer.kernel, tensors["inception_3b/3x3/0"].transpose(2, 3, 1, 0))
    factor = tensors["inception_3b/3x3/bn/2"]
    np.testing.assert_allclose(norm.moving_mean, tensors["inception_3b/3x3/bn/0"] / factor, rtol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, tensors["inception_3b/3x3/bn/1"] / factor, rtol=1e-6)
    np.testing.assert_array_equal(norm.gamma, tensors["inception_3b/3x3/bn/sc/0"])
    np.testing.assert_array_equal(norm.beta, tensors["inception_3b/3x3/bn/sc/1"])
    np.testing.assert_array_equal(model.get_layer(NEW[0]).kernel, tensors["loss1/fc/bn/sc/fc/0"].T)


@pytest.mark.parametrize("name", ["new.pth", "old.pth", "a.npz", "a.safetensors"])
def test_the_pytorch_ports_tensors_in_every_format(name, model, fresh, tmp_path):
    """A convolution's bias goes into the moving mean; the heads, absent there, stay and are listed."""
    tensors = tensors_of(model, PYTORCH)
    tensors["conv2_3x3_bn.num_batches_tracked"] = np.array(3, np.int64)
    tensors["last_linear.weight"] = np.zeros([10, 8], np.float32)
    result = load_pretrained(model, write(tmp_path / name, tensors))
    assert (result.origin, result.mean) == ("pytorch", PYTORCH.mean)
    assert result.new_layers == ("loss1_conv", "loss1_fc", *NEW)
    norm = model.get_layer("inception_3a_double3x3b_bn")
    mean = tensors["inception_3a_double_3x3_2_bn.running_mean"] - tensors["inception_3a_double_3x3_2.bias"]
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-6)
    for weight, value in zip(model.weights, fresh, strict=True):
        assert np.array_equal(weight, value) == weight.path.startswith("loss1")


def test_a_file_from_imagenet(model, tmp_path):
    """Classifiers are dropped, other levels' tensors listed as unused, the new dense layer as new."""
    tensors = tensors_of(model, CAFFE)
    del tensors["loss1/fc/bn/sc/fc/0"]
    tensors |= {"loss1/classifier/0": np.zeros([10, 1024]), "loss1/classifier/1": np.zeros(10)}
    tensors["inception_5b/1x1/0"] = np.zeros([352, 1024, 1, 1])
    result = load_pretrained(model, write(tmp_path / "imagenet.caffemodel", tensors))
    assert result.new_layers == NEW
    assert result.unused == ("inception_5b/1x1/0",)


@pytest.mark.parametrize("suffix", [".caffemodel", ".pth"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "{kernel} is missing"),
        ("norm", "{mean} is missing"),
        ("extra", "extra/0 is not part of the network"),
        ("misshapen", r"{kernel} must have shape \(64, 64, 1, 1\); got \(64, 63, 1, 1\)"),
    ],
)
def test_every_tensor_is_accounted_for(suffix, change, message, model, fresh, tmp_path):
    """A missing, extra or misshapen tensor is named, and no weight is set."""
    naming = CAFFE if suffix == ".caffemodel" else PYTORCH
    names, tensors = naming.tensors("conv2/3x3_reduce", True), tensors_of(model, naming)
    if change == "missing":
        del tensors[names["kernel"]]
    elif change == "norm":
        # A .caffemodel numbers a layer's blobs, so that only all of them can be missing.
        for role in ("moving_mean", "moving_variance", "factor"):
            tensors.pop(names.get(role), None)
    elif change == "extra":
        tensors["extra/0"] = np.zeros(3, np.float32)
    else:
        tensors[names["kernel"]] = tensors[names["kernel"]][:, :63]
    message = message.format(kernel=names["kernel"], mean=names["moving_mean"])
    with pytest.raises(ValueError, match=message):
        load_pretrained(model, write(tmp_path / f"wrong{suffix}", tensors))
    assert_unchanged(model, fresh)


def test_the_wrong_layout_is_named(high, tmp_path):
    """A file of the port for a model of the caffe layout."""
    file = write(tmp_path / "bn_inception.pth", tensors_of(high["pytorch"], PYTORCH))
    message = (
        r"4c_pool_proj.weight must have shape \(96,.* of layout 'pytorch', the model is of layout 'caffe'"
    )
    with pytest.raises(ValueError, match=message):
        load_pretrained(high["caffe"], file)


@pytest.mark.parametrize(
    "name", ["new.caffemodel", "new.pth", "old.pth", "a.npz", "a.safetensors", "a.keras", "a.weights.h5"]
)
@pytest.mark.parametrize("share", [0, 0.0001, 0.999])
def test_a_truncated_file_is_refused(name, share, model, fresh, tmp_path):
    """Wherever it breaks off, the error names the file, and no weight is set."""
    file = tmp_path / name
    if name in ("a.keras", "a.weights.h5"):
        save(model, file)
    else:
        write(file, tensors_of(model, CAFFE if "caffe" in name else PYTORCH))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=name):
        load_pretrained(model, file)
    assert_unchanged(model, fresh)


class Hostile:
    """Pickles into a call that leaves a file behind."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (exec, (f"open({str(self.file)!r}, 'w').close()",))


@pytest.mark.parametrize("name", ["new.pth", "old.pth", "a.npz"])
def test_a_pickle_that_runs_code_is_refused(name, model, fresh, tmp_path):
    """The error names what it needs; nothing is run."""
    proof, file = tmp_path / "proof", tmp_path / name
    hostile = {"conv1_7x7_s2.weight": Hostile(proof)}
    if name == "a.npz":
        np.savez(file, **{"conv1_7x7_s2.weight": np.array([hostile], object)})
        message = "a.npz must be .* plain arrays: Object arrays cannot be loaded"
    else:
        message = r"it names __builtin__\.exec, .* nothing of it was run"
        reference.write_pth(file, {}, legacy=name == "old.pth", content=pickle.dumps(hostile, 2))
    with pytest.raises(ValueError, match=message):
        load_pretrained(model, file)
    assert not proof.exists()
    assert_unchanged(model, fresh)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((2, 3), (3, 1), 0), ((10**12,), (1,), 0), ((2,), (-1,), 0), ((2,), (1,), 4), ((2,), (1,), -1)],
)
def test_a_tensor_stays_within_its_storage(shape, strides, offset, model, tmp_path):
    """A file can't have memory read that isn't its own, nor more made than it holds."""
    file, array = tmp_path / "a.pth", np.zeros(5, np.float32)
    content = reference.pickled_state_dict({"conv1_7x7_s2.weight": array}, shape, strides, offset)
    reference.write_pth(file, {"a": array}, content=content)
    with pytest.raises(ValueError, match=r"a\.pth is not .*: conv1_7x7_s2.weight of shape "):
        load_pretrained(model, file)


def test_a_tensor_may_repeat_its_numbers(model, tmp_path):
    """What PyTorch's `expand` makes; one of absurd size is refused before it takes memory."""
    file, tensors = tmp_path / "a.pth", tensors_of(model, PYTORCH)
    name = "conv2_3x3_bn.weight"
    write(file, {**tensors, name: np.broadcast_to(np.float32(1.5), [192])})
    load_pretrained(model, file)
    np.testing.assert_array_equal(model.get_layer("conv2_3x3_bn").gamma, np.full(192, 1.5))
    array = np.zeros(5, np.float32)
    content = reference.pickled_state_dict({"conv1_7x7_s2.weight": array}, (10**12,), (0,))
    reference.write_pth(file, {"a": array}, content=content)
    with pytest.raises(ValueError, match=r"weight must have shape \(64, 3, 7, 7\); got \(1000000000000,\)"):
        load_pretrained(model, file)


@pytest.mark.parametrize(
    "build",
    [
        b"ctorch\nFloatStorage\n}X\x04\x00\x00\x00nameX\x0b\x00\x00\x00HalfStoragesb.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(N}X\x07\x00\x00\x00__doc__X\x03\x00\x00\x00badstb.",
    ],
    ids=["storage", "function"],
)
def test_a_pickle_leaves_no_mark_on_the_next(build, model, tmp_path):
    """The opcode BUILD may not change what stands for PyTorch's names."""
    reference.write_pth(tmp_path / "poison.pth", {}, content=b"\x80\x02" + build)
    with pytest.raises(ValueError, match=r"poison\.pth is not a PyTorch file of tensors"):
        load_pretrained(model, tmp_path / "poison.pth")
    tensors = tensors_of(model, PYTORCH)
    load_pretrained(model, write(tmp_path / "good.pth", tensors))
    kernel = model.get_layer("conv2_3x3").kernel
    np.testing.assert_array_equal(kernel, tensors["conv2_3x3.weight"].transpose(2, 3, 1, 0))


@pytest.mark.parametrize("name", ["new.pth", "old.pth", "a.safetensors"])
def test_bfloat16_is_read(name, model, tmp_path):
    """The upper halves of float32 numbers, exactly."""
    tensors = tensors_of(model, PYTORCH)
    bits = (tensors["conv2_3x3.weight"].view(np.uint32) >> 16).astype(np.uint16)
    load_pretrained(model, write(tmp_path / name, {**tensors, "conv2_3x3.weight": bits}))
    wanted = (bits.astype(np.uint32) << 16).view(np.float32).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.get_layer("conv2_3x3").kernel, wanted)


@pytest.mark.parametrize("name", ["new.pth", "a.safetensors", "a.npz"])
def test_data_parallels_prefix_is_dropped(name, model, tmp_path):
    """`module.` before every name."""
    tensors = {f"module.{name}": array for name, array in tensors_of(model, PYTORCH).items()}
    assert load_pretrained(model, write(tmp_path / name, tensors)).origin == "pytorch"


def test_a_checkpoint_holds_a_state_dict(model, tmp_path):
    """Under any name, beside other things; several are named."""
    torch = pytest.importorskip("torch", reason="torch is not installed: make test-all")
    state = {name: torch.from_numpy(array) for name, array in tensors_of(model, PYTORCH).items()}
    file = tmp_path / "a.pth"
    torch.save({"model": state, "epoch": 3, "optimizer": {"state": {0: {"step": state}}}}, file)
    assert load_pretrained(model, file).origin == "pytorch"
    torch.save({"model": state, "ema": state}, file)
    with pytest.raises(ValueError, match="more than one state dict: model, ema; save one alone"):
        load_pretrained(model, file)


def test_batch_norms_blobs_may_have_four_sides(model, tmp_path):
    """[1, C, 1, 1], as some converters write them."""
    tensors = tensors_of(model, CAFFE)
    name = "conv2/3x3/bn/0"
    file = write(tmp_path / "a.caffemodel", {**tensors, name: tensors[name].reshape(1, -1, 1, 1)})
    load_pretrained(model, file)
    mean = tensors[name] / tensors["conv2/3x3/bn/2"]
    np.testing.assert_allclose(model.get_layer("conv2_3x3_bn").moving_mean, mean, rtol=1e-6)


def test_a_renamed_layer_is_seen(model, tmp_path):
    """Both of its names are in the message, however many tensors it has."""
    renamed = {
        name.replace("conv2_3x3_reduce", "stem"): array for name, array in tensors_of(model, PYTORCH).items()
    }
    message = r"conv2_3x3_reduce.weight is missing; stem.bias is not part of the network; conv2_3x3_reduce_bn"
    with pytest.raises(ValueError, match=message):
        load_pretrained(model, write(tmp_path / "a.pth", renamed))


def test_the_error_for_a_trunk_alone_says_what_fits(model, tmp_path):
    """A .caffemodel without auxiliary heads serves the high level."""
    tensors = {name: array for name, array in tensors_of(model, CAFFE).items() if "loss" not in name}
    with pytest.raises(ValueError, match=r'lacks only heads: levels=\["high"\] needs none of them'):
        load_pretrained(model, write(tmp_path / "a.caffemodel", tensors))


@pytest.mark.parametrize("name", ["a.caffemodel", "a.pth", "a.safetensors", "a.npz", "k.npz", "k.keras"])
def test_numbers_that_are_not_finite_are_refused(name, model, fresh, other, tmp_path):
    """The tensor is named; no weight is set."""
    bad, file = np.array([np.nan, np.inf]), tmp_path / name
    if name.startswith("k"):
        tensor = "conv2_3x3_bn/gamma"
        other.get_layer("conv2_3x3_bn").gamma.assign(np.concatenate([bad, np.ones(190)]))
        save(other, file)
    else:
        tensors = tensors_of(model, CAFFE if name == "a.caffemodel" else PYTORCH)
        tensor = "conv2/3x3/bn/sc/0" if name == "a.caffemodel" else "conv2_3x3_bn.weight"
        tensors[tensor][:2] = bad
        write(file, tensors)
    with pytest.raises(
        ValueError, match=f"{tensor} must hold finite float32 numbers; got 2 of 192 that are not"
    ):
        load_pretrained(model, file)
    assert_unchanged(model, fresh)


@pytest.mark.parametrize("value", ["a", 1j])
def test_only_real_numbers_are_accepted(value, model, tmp_path):
    """The error names the file, the tensor and its dtype."""
    file = tmp_path / "a.npz"
    np.savez(file, **{"conv1/7x7_s2/0": np.array([value])})
    with pytest.raises(ValueError, match=r"a\.npz .*: conv1/7x7_s2/0 must hold real numbers; got dtype"):
        load_pretrained(model, file)


@pytest.mark.parametrize("what", ["npy", "damaged", "huge"])
def test_a_bad_npz_is_refused(what, model, tmp_path):
    """An array alone, damaged numbers, and a header that states more numbers than there are."""
    file = tmp_path / "a.npz"
    if what == "npy":
        with file.open("wb") as stream:
            np.save(stream, np.ones(3))
    elif what == "damaged":
        np.savez_compressed(file, a=np.zeros(200_000))
        content = bytearray(file.read_bytes())
        content[60:100] = bytes(byte ^ 0xA5 for byte in content[60:100])
        file.write_bytes(content)
    else:
        header = io.BytesIO()
        about = {"descr": "<f4", "fortran_order": False, "shape": (10**15,)}
        np.lib.format.write_array_header_1_0(header, about)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("conv1/7x7_s2/0.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"a\.npz must be a whole \.npz file of plain arrays"):
        load_pretrained(model, file)


def test_arrays_by_columns_and_a_compressed_npz(model, tmp_path):
    """Whatever NumPy writes of real numbers."""
    tensors = tensors_of(model, PYTORCH)
    np.savez_compressed(tmp_path / "a.npz", **{name: np.asfortranarray(a) for name, a in tensors.items()})
    load_pretrained(model, tmp_path / "a.npz")
    kernel = model.get_layer("conv2_3x3").kernel
    np.testing.assert_array_equal(kernel, tensors["conv2_3x3.weight"].transpose(2, 3, 1, 0))


def test_real_pytorch_files(model, tmp_path):
    """Both of PyTorch's formats, as PyTorch writes them."""
    torch = pytest.importorskip("torch", reason="torch is not installed: make test-all")
    tensors = tensors_of(model, PYTORCH)
    for legacy in (False, True):
        file = tmp_path / "a.pth"
        state = {name: torch.from_numpy(array) for name, array in tensors.items()}
        torch.save(state, file, _use_new_zipfile_serialization=not legacy)
        load_pretrained(model, file)
        kernel = model.get_layer("conv2_3x3").kernel
        np.testing.assert_array_equal(kernel, tensors["conv2_3x3.weight"].transpose(2, 3, 1, 0))


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.npz"])
@pytest.mark.parametrize("backbone", ["convnet", "inception_bn"])
def test_keras_weights(name, backbone, model, other, tmp_path):
    """A Keras model's own weights, of any backbone; they don't tell the preprocessing."""
    if backbone == "inception_bn":
        source, target = other, model
    else:
        source, target = (embedding_model(backbone, embedding_dim=8) for _ in range(2))
    wanted = [np.full(weight.shape, number, np.float32) for number, weight in enumerate(target.weights)]
    source.set_weights(wanted)
    file = tmp_path / name
    save(source, file)
    result = load_pretrained(target, file)
    assert (result.origin, result.mean, result.new_layers) == ("keras", None, ())
    assert_unchanged(target, wanted)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.npz"])
def test_keras_weights_of_another_model_are_refused(name, model, fresh, tmp_path):
    """Each has its message, and no weight is set."""
    file = tmp_path / name
    save(embedding_model("convnet", embedding_dim=8), file)
    with pytest.raises(ValueError, match=f"{name} doesn't fit the model"):
        load_pretrained(model, file)
    assert_unchanged(model, fresh)


def test_the_architecture_of_a_keras_file_is_not_read(model, other, tmp_path):
    """Nothing in it can run, whatever Keras's version; the weights are read all the same."""
    other.set_weights([np.full(weight.shape, 2, np.float32) for weight in other.weights])
    other.save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as old, zipfile.ZipFile(tmp_path / "a.keras", "w") as new:
        new.writestr("config.json", '{"module": "builtins", "class_name": "exec", "config": "no JSON')
        new.writestr("model.weights.h5", old.read("model.weights.h5"))
    load_pretrained(model, tmp_path / "a.keras")
    assert all((weight.numpy() == 2).all() for weight in model.weights)


def test_a_lambda_layer_is_not_run(model, fresh, tmp_path):
    """Its layers just aren't the model's; what Keras thinks of the code doesn't matter."""
    proof, file = tmp_path / "proof", tmp_path / "a.keras"
    inputs = keras.Input([4])
    hostile = keras.layers.Lambda(eval(f"lambda x: (open({str(proof)!r}, 'w').close(), x)[1]"))
    keras.Model(inputs, keras.layers.Dense(2, name="dense")(hostile(inputs))).save(file)
    proof.unlink()
    with pytest.raises(ValueError, match="dense/0 is not part of the network"):
        load_pretrained(model, file)
    assert not proof.exists()
    assert_unchanged(model, fresh)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5"])
def test_keras_files_of_another_layout(name, high, tmp_path):
    """The tensor and both layouts are named."""
    file = tmp_path / name
    save(high["pytorch"], file)
    message = (
        r"4c_pool_proj/kernel must have shape \(1, 1, 576, 96\); .* of layout 'pytorch', the model is of"
    )
    with pytest.raises(ValueError, match=message):
        load_pretrained(high["caffe"], file)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5"])
def test_a_layer_missing_from_a_keras_file_is_named(name, model, fresh, high, tmp_path):
    """Its variables are; other levels' are listed as unused."""
    file = tmp_path / name
    caffe = high["caffe"]
    save(keras.Model(caffe.input, caffe.get_layer("inception_5b_output").output), file)
    with pytest.raises(ValueError, match=r'loss1_conv/kernel is missing; .*levels=\["high"\]'):
        load_pretrained(model, file)
    assert_unchanged(model, fresh)
    assert load_pretrained(caffe, file).new_layers == ("pool5_7x7_s1_fc",)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5"])
def test_layers_in_layers(name, tmp_path):
    """Layers of one name in several others; their order and kind don't matter, their names do."""

    def make():
        inner = [
            keras.Sequential(
                [keras.layers.Dense(3, name="dense"), keras.layers.BatchNormalization(name="norm")]
            )
            for _ in range(2)
        ]
        for number, each in enumerate(inner):
            each.name = f"inner_{number}"
        inputs = keras.Input([3])
        return keras.Model(inputs, inner[1](inner[0](inputs)))

    source, target, file = make(), make(), tmp_path / name
    source.set_weights([np.full(w.shape, number, np.float32) for number, w in enumerate(source.weights)])
    save(source, file)
    load_pretrained(target, file)
    assert_unchanged(target, source.get_weights())


def test_a_keras_file_holds_its_numbers_itself(model, tmp_path):
    """HDF5 can refer to any other file on the machine."""
    secret, file = tmp_path / "secret", tmp_path / "a.weights.h5"
    secret.write_bytes(bytes(64 * 4))
    with h5py.File(file, "w") as content:
        group = content.create_group("layers/kernel/vars")
        group.attrs["name"] = "conv1_7x7_s2"
        group.create_dataset("0", shape=(64,), dtype="f4", external=[(str(secret), 0, 256)])
    with pytest.raises(ValueError, match=r"a\.weights\.h5 .*conv1_7x7_s2/0 must lie in the file as a whole"):
        load_pretrained(model, file)


def test_other_files_are_refused(model, tmp_path):
    """No file, with the names of public ones, and a format nobody knows."""
    with pytest.raises(
        FileNotFoundError, match=r"at .*a\.pth; .* googlenet_bn\.caffemodel, .* bn_inc.*\.pth"
    ):
        load_pretrained(model, tmp_path / "a.pth")
    (tmp_path / "a.bin").touch()
    with pytest.raises(ValueError, match=r"formats \.caffemodel, .*; got a\.bin"):
        load_pretrained(model, tmp_path / "a.bin")
