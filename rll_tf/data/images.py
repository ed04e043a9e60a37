"""From a picture file's bytes to the numbers a network takes: written once, for training, evaluation, export.

Everything here is TensorFlow ops without Python state, so it runs eagerly, inside `tf.data`, and inside the
exported graph. The way of a picture is

    decode -> fit -> (training: augment | otherwise: centre_crop) -> normalise
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decode one JPEG, PNG, BMP or GIF (its first frame) from its bytes.

    Grey pictures become three equal channels and an alpha channel is dropped.

    Args:
        encoded: scalar string, a picture file's bytes.

    Returns:
        [height, width, 3] uint8, RGB.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no such picture, or break off early.
    """
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How decoded pictures become a network's input; travels with a run and into the exported graph.

    Args:
        input_px: side of the square that the network sees, in pixels.
        resize_px: side to which a whole picture is resized first (aspect ratio not kept, section 3.4 of the
            paper); the network sees a crop of it. At least `input_px`.
        mean: subtracted from each channel, in units of 0 to 255, in the network's channel order.
        scale: what the difference is divided by.
        bgr: whether the network takes its channels in Caffe's order, blue first.
    """

    input_px: int
    resize_px: int
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    scale: float = 127.5
    bgr: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.input_px <= self.resize_px:
            raise ValueError(
                "input_px must be at least 1 and at most resize_px; "
                f"got input_px={self.input_px}, resize_px={self.resize_px}"
            )

    def fit(self, image: tf.Tensor) -> tf.Tensor:
        """Resize a whole picture to the square the crops are cut from.

        Bilinear, averaging over the source pixels when shrinking, rounded to whole numbers so that a cached
        picture equals a fresh one.

        Args:
            image: [..., height, width, channels] uint8; one channel becomes three.

        Returns:
            [..., resize_px, resize_px, 3] uint8.
        """
        size = [self.resize_px, self.resize_px]
        image = tf.image.resize(image, size, method="bilinear", antialias=True)
        image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
        return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image

    def centre_crop(self, images: tf.Tensor) -> tf.Tensor:
        """Cut the middle square of side `input_px` from [..., resize_px, resize_px, 3]."""
        first = (self.resize_px - self.input_px) // 2
        last = first + self.input_px
        return images[..., first:last, first:last, :]

    def normalise(self, images: tf.Tensor) -> tf.Tensor:
        """Turn [..., 3] RGB pixels of 0 to 255 into the float32 numbers that the network takes."""
        images = tf.cast(images, tf.float32)
        if self.bgr:
            images = images[..., ::-1]
        return (images - tf.constant(self.mean, tf.float32)) / self.scale

    def prepare(self, encoded: tf.Tensor) -> tf.Tensor:
        """The whole way of one picture at test time: scalar bytes -> [input_px, input_px, 3] float32."""
        return self.normalise(self.centre_crop(self.fit(decode(encoded))))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """The inverse of `dataclasses.asdict`, also after a trip through JSON."""
        return cls(**{**values, "mean": tuple(values["mean"])})


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes to training pictures that leave what they show the same thing.

    The defaults change nothing but the crop. Which changes are harmless depends on the pictures: a mirrored
    bird is a bird, a mirrored letter is another letter.

    Args:
        mirror: mirror every second picture left to right.
        rotate_degrees: largest rotation either way.
        zoom: largest relative change of size, either way; 0.2 draws sizes from 1/1.2 to 1.2.
        stretch: the same for the ratio of width to height.
        shear: largest horizontal shear either way, as a ratio.
        shift: largest shift either way along each axis, as a share of the side.
    """

    mirror: bool = False
    rotate_degrees: float = 0.0
    zoom: float = 0.0
    stretch: float = 0.0
    shear: float = 0.0
    shift: float = 0.0

    def __call__(self, images: tf.Tensor, preprocessing: Preprocessing, seed: tf.Tensor) -> tf.Tensor:
        """Crop and change each picture of a batch at random, as a pure function of `seed`.

        Pixels that a rotation or shift brings in from outside repeat the picture's edge.

        Args:
            images: [N, resize_px, resize_px, 3] uint8.
            preprocessing: its `input_px` is the crop's side.
            seed: [2] int, e.g. (run's seed, step).

        Returns:
            [N, input_px, input_px, 3] float32 of 0 to 255.
        """
        seeds = tf.random.split(seed, 3)
        images = _random_crop(images, preprocessing, seeds[0])
        if self.mirror:
            images = _random_mirror(images, seeds[1])
        images = tf.cast(images, tf.float32)
        if self.rotate_degrees or self.zoom or self.stretch or self.shear or self.shift:
            transforms = self._transforms(tf.shape(images)[0], preprocessing.input_px, seeds[2])
            images = keras.ops.image.affine_transform(
                images, transforms, interpolation="bilinear", fill_mode="nearest"
            )
        return images

    def _transforms(self, count: tf.Tensor, side_px: int, seed: tf.Tensor) -> tf.Tensor:
        """[count, 8] projective transforms from output to input pixels, about the picture's centre."""
        draws = tf.random.stateless_uniform([6, count], seed, -1.0, 1.0)
        angle = draws[0] * (self.rotate_degrees * math.pi / 180)
        zoom = tf.exp(draws[1] * math.log1p(self.zoom))
        stretch = tf.exp(draws[2] * math.log1p(self.stretch) / 2)
        shear = draws[3] * self.shear
        cos, sin = tf.cos(angle), tf.sin(angle)
        # [a b; c d] = rotation · shear · scale, read from output to input
        a, b = cos * stretch / zoom, (cos * shear - sin) / (stretch * zoom)
        c, d = sin * stretch / zoom, (sin * shear + cos) / (stretch * zoom)
        centre = (side_px - 1) / 2
        offset_x = centre - a * centre - b * centre + draws[4] * self.shift * side_px
        offset_y = centre - c * centre - d * centre + draws[5] * self.shift * side_px
        zero = tf.zeros_like(a)
        return tf.stack([a, b, offset_x, c, d, offset_y, zero, zero], axis=1)


def _random_crop(images: tf.Tensor, preprocessing: Preprocessing, seed: tf.Tensor) -> tf.Tensor:
    side, room = preprocessing.input_px, preprocessing.resize_px - preprocessing.input_px
    if room == 0:
        return images
    count = tf.shape(images)[0]
    corners = tf.random.stateless_uniform([2, count, 1], seed, 0, room + 1, tf.int32)
    images = tf.gather(images, corners[0] + tf.range(side), axis=1, batch_dims=1)
    return tf.gather(images, corners[1] + tf.range(side), axis=2, batch_dims=1)


def _random_mirror(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    mirrored = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed) < 0.5
    return tf.where(mirrored, images[:, :, ::-1], images)
