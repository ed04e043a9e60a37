"""Run by path, not imported: an artefact's outputs with TensorFlow alone, loaded as the C++ server does.

    python -I fresh_process.py FOLDER REQUEST.npz RESPONSE.npz

On the processor alone: the graph is loaded with the tag `serve`, and the tensors that a signature names are
fed and fetched by name. REQUEST.npz holds `bytes`, all pictures' bytes one after the other as uint8,
`lengths`, and `pixels` [B, h, w, 3] uint8; pictures go `batch` at a time. RESPONSE.npz gets one array an
output, as SIGNATURE/OUTPUT.
"""

import os
import sys

import numpy as np

# The exporting process may hold all of a GPU's memory, and a GPU rounds otherwise than the processor.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

# From here on their import fails: a server has neither.
for module in ("keras", "rll_tf", "serving"):
    sys.modules[module] = None  # type: ignore[assignment]
import tensorflow as tf  # noqa: E402

folder, request, response = sys.argv[1:]
with np.load(request) as arrays:
    ends = np.cumsum(arrays["lengths"])
    content = arrays["bytes"].tobytes()
    pixels, batch = arrays["pixels"], int(arrays["batch"])
pictures = [content[first:end] for first, end in zip([0, *ends[:-1]], ends, strict=True)]
outputs = {}
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder)
    for name, signature in meta_graph.signature_def.items():
        if name.startswith("__"):  # initialisation, which the loader has run
            continue
        (key,) = signature.inputs
        values = pixels if key == "pixels" else np.array(pictures, object)
        fetches = {f"{name}/{output}": tensor.name for output, tensor in signature.outputs.items()}
        parts = [
            session.run(fetches, {signature.inputs[key].name: values[first : first + batch]})
            for first in range(0, len(values), batch)
        ]
        for output in fetches:
            joined = np.concatenate([part[output] for part in parts])
            outputs[output] = joined.astype("S") if joined.dtype == object else joined
np.savez(response, **outputs)
