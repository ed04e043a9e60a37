"""From a picture file's bytes to the numbers a network takes: written once, for training, evaluation, export.

Everything here is TensorFlow ops without Python state, so it runs eagerly, inside `tf.data`, and inside the
exported graph. The way of a picture is

    decode -> fit -> window (training: at random, then augment | otherwise: in the middle) -> normalise
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
        shape = tf.shape(image)
        flat = tf.reshape(image, tf.concat([[-1], shape[-3:]], 0))
        # A weighted mean stays within 0 to 255 but for the last digit, which rounding takes away.
        fitted = tf.cast(tf.round(resize(flat, self.resize_px, self.resize_px)), tf.uint8)
        fitted = tf.reshape(fitted, tf.concat([shape[:-3], [self.resize_px, self.resize_px, shape[-1]]], 0))
        return self._square(fitted, image.shape, self.resize_px)

    def fit_window(self, image: tf.Tensor, corner: tf.Tensor) -> tf.Tensor:
        """What `window` cuts from `fit`'s answer, without computing the rest.

        Args:
            image: [height, width, channels] uint8; one channel becomes three.
            corner: [2] int32, the window's first row and column, each at most resize_px - input_px.

        Returns:
            [input_px, input_px, 3] float32, whole numbers.
        """
        window = tf.stack([corner, corner + self.input_px], axis=1)
        fitted = tf.round(resize(image[tf.newaxis], self.resize_px, self.resize_px, window)[0])
        return self._square(fitted, image.shape, self.input_px)

    def window(self, image: tf.Tensor, corner: tf.Tensor) -> tf.Tensor:
        """Cut the square of side `input_px` that begins at `corner`, [2] int32, from fitted pictures."""
        last = corner + self.input_px
        cut = image[..., corner[0] : last[0], corner[1] : last[1], :]
        return self._square(cut, image.shape, self.input_px)

    @property
    def centre(self) -> tf.Tensor:
        """The corner of the window in the middle, which the network sees at test time: [2] int32."""
        return tf.fill([2], (self.resize_px - self.input_px) // 2)

    def normalise(self, images: tf.Tensor) -> tf.Tensor:
        """Turn [..., width, 3] RGB pixels of 0 to 255 into the float32 numbers that the network takes.

        Reversing a row's pixels and then all its numbers reorders the channels, and the mean is repeated
        along a row: reversing or subtracting along an axis of three takes several times as long on a CPU.
        """
        shape = tf.shape(images)
        values = tf.cast(images, tf.float32)
        if self.bgr:
            values = tf.reverse(tf.reshape(values, [-1, shape[-2], 3]), [1])
            values = tf.reverse(tf.reshape(values, [-1, 3 * shape[-2]]), [1])
        mean = tf.tile(tf.constant(self.mean, tf.float32), shape[-2:-1])
        values = tf.reshape(values, [-1, 3 * shape[-2]]) - mean
        if self.scale != 1:
            values /= self.scale
        return tf.ensure_shape(tf.reshape(values, shape), images.shape)

    def prepare(self, encoded: tf.Tensor) -> tf.Tensor:
        """The whole way of one picture at test time: scalar bytes -> [input_px, input_px, 3] float32."""
        return self.normalise(self.fit_window(decode(encoded), self.centre))

    def _square(self, image: tf.Tensor, source: tf.TensorShape, side: int) -> tf.Tensor:
        """Make three channels of one, and tell TensorFlow the shape."""
        image = tf.ensure_shape(image, [*source[:-3], side, side, source[-1]])
        return tf.image.grayscale_to_rgb(image) if source[-1] == 1 else image

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
        return dataclasses.replace(preprocessing, resize_px=preprocessing.input_px).fit(window)

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
            # TensorFlow reverses rows of pixels fast where a tensor has three axes, and chooses whole
            # pictures fast where the condition is not broadcast.
            rows = tf.reshape(images, [-1, preprocessing.input_px, 3])
            reversed_ = tf.reshape(tf.reverse(rows, [1]), tf.shape(images))
            images = tf.raw_ops.Select(condition=mirrored, x=reversed_, y=images)
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

    def turn(self, image: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
        """One picture, [height, width, 3], mirrored as `places` tells: scalar bool."""
        if not self.mirror:
            return image
        return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)

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


def _crop(images: tf.Tensor, corners: tf.Tensor, preprocessing: Preprocessing) -> tf.Tensor:
    if preprocessing.resize_px == preprocessing.input_px:
        return images
    span = tf.range(preprocessing.input_px)
    images = tf.gather(images, corners[:, :1] + span, axis=1, batch_dims=1)
    return tf.gather(images, corners[:, 1:] + span, axis=2, batch_dims=1)
