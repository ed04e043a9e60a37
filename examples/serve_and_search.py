"""Export a model with a gallery, serve it, and search with the client.

Needs `pip install 'rll_tf[serving]'` for the development server. In production that is TensorFlow Serving,
and the client the one file `serving/client.py`, which needs no TensorFlow. From a shell: `rll serve`.
"""

import io
import tempfile
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import rll_tf
from rll_tf.data import Preprocessing, class_balanced_dataset, open_dataset
from serving.client import EmbeddingClient
from serving.development.server import development_server
from serving.export import export
from serving.search import PackedGallery

REST_PORT, GRPC_PORT = 18501, 18500


def as_file(pixels):
    """The bytes of a picture file."""
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(stream, "PNG")
    return stream.getvalue()


letters = open_dataset("glyphs")
train, unseen = letters.select("train"), letters.select("test")
layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(32, 3, strides=2, activation="relu")]
layers += [keras.layers.Flatten(), keras.layers.Dense(32)]
model = keras.Sequential([keras.Input([32, 32, 1]), *layers])
model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss=rll_tf.RankedListLoss(margin=0.8))
batches = class_balanced_dataset(train.pixels, train.labels, classes_per_batch=40, images_per_class=3)
model.fit(batches, steps_per_epoch=200, shuffle=False, verbose=0)

embeddings = keras.utils.normalize(model.predict(unseen.pixels, verbose=0))
gallery = {
    "embeddings": embeddings[1:],
    "labels": unseen.labels[1:],
    "paths": np.array([f"{number}.png" for number in range(1, len(unseen))]),
    "class_names": np.array([unseen.class_names[label] for label in unseen.labels[1:]]),
}
raw = Preprocessing(input_px=32, resize_px=32, mean=(0.0, 0.0, 0.0), scale=1.0)  # the model has a Rescaling
folder = Path(tempfile.mkdtemp())
export(model, raw, folder, gallery=PackedGallery(gallery, top=3, precision="float32"))

server = development_server(folder, "rll_tf", "127.0.0.1", REST_PORT, GRPC_PORT, print)
with server, EmbeddingClient(f"http://127.0.0.1:{REST_PORT}") as client:
    print("embeddings:", client.embed([as_file(pixels) for pixels in unseen.pixels[:8]]).shape)
    found = client.search([as_file(unseen.pixels[0])])
for rank, (name, distance) in enumerate(zip(found.class_names[0], found.distances[0], strict=True), 1):
    print(f"{rank}  {distance:.4f}  {name}")
