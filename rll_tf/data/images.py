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

from rll_tf.data.decode import decode
from rll_tf.data.resize import resize

__all__ = ["Augmentation", "Preprocessing", "decode"]


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
        if image.shape.rank != 3:
            shape = tf.shape(image)
            flat = tf.reshape(image, tf.concat([[-1], shape[-3:]], 0))
            one = tf.TensorSpec([self.resize_px, self.resize_px, 3], tf.uint8)
            flat = tf.ensure_shape(flat, [None, None, None, image.shape[-1]])
            fitted = tf.map_fn(self.fit, flat, fn_output_signature=one)
            return tf.reshape(fitted, tf.concat([shape[:-3], one.shape], 0))
        fitted = _whole_numbers(resize(image, self.resize_px, self.resize_px))
        return tf.image.grayscale_to_rgb(fitted) if image.shape[-1] == 1 else fitted

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
        scale_and_aspect: train on crops of other sizes and shapes, as the authors' 2020 release does, instead
            of crops of side `input_px` from the picture resized to `resize_px`; see `scaled_crop`.
    """

    mirror: bool = False
    rotate_degrees: float = 0.0
    zoom: float = 0.0
    stretch: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    scale_and_aspect: bool = False

    def scaled_crop(self, image: tf.Tensor, preprocessing: Preprocessing, seed: tf.Tensor) -> tf.Tensor:
        """Cut a window of random size and shape from a whole picture and resize it to the network's input.

        With s uniform from 0.5 to 1 and a, the ratio of width to height, log-uniform from 3/4 to 4/3, the
        window of an h × w picture is s √(h w a) wide and s √(h w / a) high, rounded, each at least 1 and at
        most the picture's; its place is uniform.

        Args:
            image: [h, w, channels] uint8, as decoded; one channel becomes three.
            preprocessing: its `input_px` is the side of the result.
            seed: [2] int, of this picture in this step.

        Returns:
            [input_px, input_px, 3] uint8.
        """
        draws = tf.random.stateless_uniform([4], seed)
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        scale = 0.5 + 0.5 * draws[0]
        ratio = tf.exp((2 * draws[1] - 1) * math.log(4 / 3))
        side = scale * tf.sqrt(size[0] * size[1])
        extent = tf.stack([side / tf.sqrt(ratio), side * tf.sqrt(ratio)])
        extent = tf.clip_by_value(tf.round(extent), 1.0, size)
        corner = tf.cast(tf.floor(draws[2:] * (size - extent + 1)), tf.int32)
        last = corner + tf.cast(extent, tf.int32)
        window = image[corner[0] : last[0], corner[1] : last[1]]
        crop = _whole_numbers(resize(window, preprocessing.input_px, preprocessing.input_px))
        return tf.image.grayscale_to_rgb(crop) if image.shape[-1] == 1 else crop

    def __call__(
        self,
        images: tf.Tensor,
        preprocessing: Preprocessing,
        seed: tf.Tensor,
        part: tuple[int, int] | None = None,
    ) -> tf.Tensor:
        """Crop and change each picture of a batch at random, as a pure function of `seed`.

        Pixels that a rotation or shift brings in from outside repeat the picture's edge.

        Args:
            images: [N, resize_px, resize_px, 3] uint8; with `scale_and_aspect` what `scaled_crop` gave.
            preprocessing: its `input_px` is the crop's side.
            seed: [2] int, e.g. (run's seed, step).
            part: where several workers share a batch: the place of `images` in it, and its whole size. The
                parts then come out as the whole would.

        Returns:
            [N, input_px, input_px, 3] float32 of 0 to 255.
        """
        count = tf.shape(images)[0]
        if not self.scale_and_aspect:
            corners, mirrored = self.places(count, preprocessing, seed, part)
            images = _crop(images, corners, preprocessing)
        else:
            _, mirrored = self.places(count, preprocessing, seed, part)
        if self.mirror:
            images = tf.where(mirrored[:, tf.newaxis, tf.newaxis, tf.newaxis], images[:, :, ::-1], images)
        images = tf.cast(images, tf.float32)
        if self.is_geometric:
            seeds = tf.random.split(seed, 3)
            transforms = self._transforms(_Draws(count, part), preprocessing.input_px, seeds[2])
            images = keras.ops.image.affine_transform(
                images, transforms, interpolation="bilinear", fill_mode="nearest"
            )
        return images

    @property
    def is_geometric(self) -> bool:
        """Whether pictures are turned, scaled, sheared or shifted."""
        return any((self.rotate_degrees, self.zoom, self.stretch, self.shear, self.shift))

    def places(
        self,
        count: tf.Tensor,
        preprocessing: Preprocessing,
        seed: tf.Tensor,
        part: tuple[int, int] | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Where a call with this seed cuts its crops, and which of them it mirrors.

        Returns:
            [N, 2] int32, the crops' first rows and columns, and [N] bool.
        """
        seeds = tf.random.split(seed, 3)
        draw = _Draws(count, part)
        room = preprocessing.resize_px - preprocessing.input_px
        corners = tf.transpose(draw(2, seeds[0], 0, room + 1, tf.int32))
        return corners, draw(1, seeds[1], 0.0, 1.0)[0] < 0.5

    def crop(
        self, image: tf.Tensor, preprocessing: Preprocessing, corner: tf.Tensor, mirrored: tf.Tensor
    ) -> tf.Tensor:
        """One picture of a call, where nothing is geometric: the same, while it is in the processor's cache.

        Args:
            image: [resize_px, resize_px, 3] uint8.
            preprocessing: its `input_px` is the crop's side.
            corner: [2] int32, of `places`.
            mirrored: scalar bool, of `places`.

        Returns:
            [input_px, input_px, 3] uint8.
        """
        side = preprocessing.input_px
        image = image[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
        image = tf.ensure_shape(image, [side, side, 3])
        if not self.mirror:
            return image
        return tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)

    def _transforms(self, draw: _Draws, side_px: int, seed: tf.Tensor) -> tf.Tensor:
        """[N, 8] projective transforms from output to input pixels, about the picture's centre."""
        draws = draw(6, seed, -1.0, 1.0)
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


class _Draws:
    """Random numbers for each picture of a batch, or of a worker's part of it."""

    def __init__(self, count: tf.Tensor, part: tuple[int, int] | None) -> None:
        self.count = count
        self.first = 0 if part is None else part[0]
        self.whole: tf.Tensor = count if part is None else part[1]

    def __call__(
        self, numbers: int, seed: tf.Tensor, low: float, high: float, dtype: tf.DType = tf.float32
    ) -> tf.Tensor:
        """[numbers, N], from low up to but not including high."""
        draws = tf.random.stateless_uniform([numbers, self.whole], seed, low, high, dtype)
        return draws[:, self.first : self.first + self.count]


def _whole_numbers(image: tf.Tensor) -> tf.Tensor:
    # A weighted mean stays within 0 to 255 but for the last digit, which rounding takes away.
    return tf.cast(tf.round(image), tf.uint8)


def _crop(images: tf.Tensor, corners: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    if preprocessing.resize_px == preprocessing.input_px:
        return images
    span = tf.range(preprocessing.input_px)
    images = tf.gather(images, corners[:, :1] + span, axis=1, batch_dims=1)
    return tf.gather(images, corners[:, 1:] + span, axis=2, batch_dims=1)
