"""Your own network, pictures in arrays and `fit`, which stops once unseen letters are found no better."""

import keras

import rll_tf
from rll_tf.evaluation import RetrievalMetrics

letters = rll_tf.data.open_dataset("glyphs")  # or any arrays: pictures [n, 32, 32, 1] uint8, labels [n]
train, unseen = letters.select("train"), letters.select("validation")
batches = rll_tf.data.class_balanced_dataset(train.pixels, train.labels, 40, 3)

scale = keras.layers.Rescaling(1 / 127.5, offset=-1)
network = keras.applications.MobileNet(weights=None, include_top=False, alpha=0.5, input_shape=(32, 32, 1))
network = keras.Model(network.input, network.get_layer("conv_pw_5_relu").output)  # enough for small pictures
layers = [scale, network, keras.layers.Flatten(), keras.layers.Dense(64)]
model = keras.Sequential([keras.Input([32, 32, 1]), *layers])
model.compile(keras.optimizers.SGD(0.4, momentum=0.9), loss=rll_tf.RankedListLoss(margin=0.8))

watch = RetrievalMetrics(unseen.pixels, unseen.labels)
stop = keras.callbacks.EarlyStopping("val_recall@1", mode="max", patience=4, restore_best_weights=True)
model.fit(batches, epochs=30, steps_per_epoch=50, shuffle=False, callbacks=[watch, stop], verbose=2)
print(f"Recall@1 on letters never seen: {watch.compute()['concat']['recall@1']:.3f}")
