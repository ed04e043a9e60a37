"""Run by path, not imported: answers from an artefact with TensorFlow alone.

    python -I fresh_process.py FOLDER REQUEST.npz ANSWER.npz

REQUEST.npz holds `bytes`, all pictures' bytes one after the other as uint8, and `lengths`. ANSWER.npz gets
one array of embeddings a signature.
"""

import sys

import numpy as np
import tensorflow as tf

folder, request, answer = sys.argv[1:]
with np.load(request) as arrays:
    ends = np.cumsum(arrays["lengths"])
    everything = arrays["bytes"].tobytes()
pictures = [everything[first:end] for first, end in zip([0, *ends[:-1]], ends, strict=True)]
signatures = tf.saved_model.load(folder).signatures
answers = {name: run(images=tf.constant(pictures))["embedding"].numpy() for name, run in signatures.items()}
if "rll_tf" in sys.modules:
    sys.exit("this process must not have rll_tf")
np.savez(answer, **answers)
