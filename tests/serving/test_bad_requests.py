"""What any server of an exported model must reject, and how; see `tests/serving/conftest.py`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_image_header import animated_webp
from tests.serving.endpoint import GOOD, b64, predict_call

not_pictures = st.one_of(
    st.binary(max_size=200),
    st.integers(1, len(GOOD) // 2).map(lambda length: GOOD[:length]),
    st.binary(min_size=1, max_size=50).map(lambda tail: b"\xff\xd8\xff\xe0" + tail),
    # A PNG header of 10^10 pixels.
    st.just(GOOD[:16] + (100_000).to_bytes(4, "big") * 2 + GOOD[24:]),
    # One of a single row of 10^6.
    st.just(GOOD[:16] + (1_000_000).to_bytes(4, "big") + (1).to_bytes(4, "big") + GOOD[24:]),
    st.just(animated_webp()),
)
wrong_values = st.one_of(
    not_pictures.map(b64),
    st.sampled_from(["!", "a", "é", "=x", "AAAA=A"]).map(lambda text: {"b64": text}),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(max_size=20),
    st.just([]),
    st.just([[b64(GOOD)]]),
    st.dictionaries(st.sampled_from(["image", "b64", "x"]), st.integers(), min_size=1),
)
INITIALISATION = "__saved_model_init_op"
wrong_signatures = ["top", "Low", " ", "a\nb\0", "x" * 5000, "\U0001f600" * 1000, INITIALISATION]
halves_of_pairs = st.sampled_from(["\ud800", "\udc80", "a\udfff"])
wrong_bodies = st.one_of(
    halves_of_pairs.map(lambda name: {"instances": [b64(GOOD)], "signature_name": name}),
    halves_of_pairs.map(lambda name: {"instances": [{name: b64(GOOD)}]}),
    halves_of_pairs.map(lambda text: {"instances": [text]}),
    st.binary(max_size=100),
    st.text(max_size=50).map(str.encode),
    st.recursive(st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)),
    wrong_values.map(lambda value: {"instances": [value]}),
    wrong_values.map(lambda value: {"instances": [b64(GOOD), value]}),
    wrong_values.map(lambda value: {"inputs": [value]}),
    wrong_values.map(lambda value: {"inputs": {"images": [value]}}),
    st.sampled_from(["images", "input", "picture"]).map(lambda key: {key: [b64(GOOD)]}),
    st.sampled_from(["image", "pixels", ""]).map(lambda name: {"inputs": {name: [b64(GOOD)]}}),
    st.just({"instances": []}),
    st.just({"inputs": []}),
    st.just({"instances": [b64(GOOD)], "inputs": [b64(GOOD)]}),
    st.sampled_from(wrong_signatures).map(lambda name: {"instances": [b64(GOOD)], "signature_name": name}),
    st.just({"inputs": {}, "signature_name": INITIALISATION}),
    st.integers(800, 1100).map(lambda depth: b"[" * depth + b"]" * depth),
    st.just({"instances": [b64(GOOD)], "signature_name": 7}),
    st.sampled_from([[[[[1.5, 2, 3]]]], [[1, 2, 3]], [[[["a", "b", "c"]]]], [[[[1, 2]]]]]).map(
        lambda pixels: {"inputs": pixels, "signature_name": "pixels"}
    ),
    st.integers(257, 300).map(lambda count: {"instances": [b64(GOOD)] * count}),
)


@settings(max_examples=5 * settings().max_examples // 2)  # a thousand in all where the profile is thorough
@given(wrong_bodies)
def test_bad_rest_requests_are_rejected_with_a_message(endpoint, body):
    """Each is a 4xx that says why, and the next good request is accepted."""
    status, response = endpoint.post(body)
    assert 400 <= status < 500, response
    assert list(response) == ["error"]
    assert response["error"].strip()
    status, response = endpoint.post({"instances": [b64(GOOD)]})
    assert status == 200, response


def string_tensor(values, shape=None):
    """A TensorProto; with any shape."""
    import tensorflow as tf

    message = tf.make_tensor_proto(values, tf.string)
    if shape is not None:
        message.tensor_shape.Clear()
        for size in shape:
            message.tensor_shape.dim.add(size=size)
    return message


def other_tensor(values, dtype):
    """A TensorProto of another dtype than strings."""
    import tensorflow as tf

    return tf.make_tensor_proto(values, tf.dtypes.as_dtype(dtype))


wrong_tensors = st.one_of(
    not_pictures.map(lambda content: {"images": string_tensor([GOOD, content])}),
    st.just({"images": string_tensor([])}),
    st.just({"images": string_tensor([[GOOD]])}),
    st.just({"images": string_tensor(GOOD)}),
    st.sampled_from([[2**40], [2**62, 2], [-1], [3, 3]]).map(
        lambda shape: {"images": string_tensor([GOOD, GOOD], shape)}
    ),
    st.builds(
        lambda numbers, dtype: {"images": other_tensor(numbers, dtype)},
        st.lists(st.integers(0, 9), min_size=1, max_size=3),
        st.sampled_from(["int64", "float32", "uint8"]),
    ),
    # One string that stands for 2 GB of equal ones.
    st.just({"images": string_tensor([bytes(2000)], [2**20])}),
    st.sampled_from(["image", "pixels", "", "\U0001f600" * 1000]).map(
        lambda name: {name: string_tensor([GOOD])}
    ),
    st.just({"images": string_tensor([GOOD]), "pixels": string_tensor([GOOD])}),
    st.just({}),
)


@settings(max_examples=5 * settings().max_examples // 2)  # a thousand in all where the profile is thorough
@given(wrong_tensors)
def test_bad_grpc_requests_are_rejected_with_a_message(endpoint, inputs):
    """Each is INVALID_ARGUMENT that says why, and the next good request is accepted."""
    import grpc

    stub, request = predict_call(endpoint)
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tensor)
    with pytest.raises(grpc.RpcError) as rejected:
        stub.Predict(request, timeout=60)
    assert rejected.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert rejected.value.details().strip()
    stub, request = predict_call(endpoint)
    request.inputs["images"].CopyFrom(string_tensor([GOOD]))
    assert stub.Predict(request, timeout=60).outputs["embedding"].tensor_shape.dim[0].size == 1


@pytest.mark.parametrize("inputs", [{}, {"images": string_tensor([GOOD])}], ids=["none", "images"])
@pytest.mark.parametrize("name", wrong_signatures)
def test_a_grpc_request_to_no_such_signature_is_rejected(endpoint, name, inputs):
    """However long its name is, and where it is there but not for predict."""
    import grpc

    stub, request = predict_call(endpoint)
    request.model_spec.signature_name = name
    for key, tensor in inputs.items():
        request.inputs[key].CopyFrom(tensor)
    with pytest.raises(grpc.RpcError) as rejected:
        stub.Predict(request, timeout=60)
    codes = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
    assert rejected.value.code() in codes, rejected.value.details()
    assert rejected.value.details().strip()
