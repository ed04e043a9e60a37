"""From a picture file's bytes to the numbers a network takes: written once, for training, evaluation, export.

Everything here is TensorFlow ops without Python state, so it runs eagerly, inside `tf.data`, and inside the
exported graph. A picture is processed on its own, in these steps:

    decode -> resize and crop (training: at random, then augment | otherwise: the centre) -> normalise
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf

from rll_tf.data.decode import decode
from rll_tf.data.resize import resize


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How decoded pictures become a network's input; stored with a run and part of the exported graph.

    Args:
        input_px: side of the square that the network sees, in pixels.
        resize_px: side to which a whole picture is resized first (aspect ratio not kept, section 3.4 of the
            paper); the network sees a crop of it. At least `input_px`.
        mean: subtracted from each channel, in units of 0 to 255, in the network's channel order.
        scale: what the difference is divided by; one number, or one a channel.
        bgr: whether the network takes its channels in Caffe's order, blue first.
    """

    input_px: int
    resize_px: int
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    scale: float | tuple[float, float, float] = 127.5
    bgr: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.input_px <= self.resize_px:
            raise ValueError(
                "input_px must be at least 1 and at most resize_px; "
                f"got input_px={self.input_px}, resize_px={self.resize_px}"
            )

    def fit(self, image: tf.Tensor) -> tf.Tensor:
        """Resize whole pictures to the square that crops are cut from.

        Bilinear, averaging over the source pixels when shrinking, rounded to whole numbers so that a cached
        picture equals a fresh one.

        Args:
            image: [height, width, channels] or [B, height, width, channels] uint8; one channel becomes three.

        Returns:
            [resize_px, resize_px, 3] or [B, resize_px, resize_px, 3] uint8.
        """
        if image.shape.rank == 3:
            return self.fit(image[tf.newaxis])[0]
        return _rgb_square(_to_uint8(resize(image, self.resize_px, self.resize_px)), self.resize_px)

    def fit_window(self, image: tf.Tensor, corner: tf.Tensor) -> tf.Tensor:
        """`window(fit(image), corner)`, computing only the pixels of the window.

        Args:
            image: [height, width, channels] uint8; one channel becomes three. If its static shape says that
                it has been resized already, it is only cropped.
            corner: [2] int32, the window's first row and column, each at most resize_px - input_px.

        Returns:
            [input_px, input_px, 3] uint8.
        """
        if image.shape[:2] == [self.resize_px, self.resize_px]:
            return self.window(image, corner)
        span = tf.stack([corner, corner + self.input_px], axis=1)
        fitted = resize(image[tf.newaxis], self.resize_px, self.resize_px, span)[0]
        return _rgb_square(_to_uint8(fitted), self.input_px)

    def window(self, image: tf.Tensor, corner: tf.Tensor) -> tf.Tensor:
        """Cut the square of side `input_px` that begins at `corner`, [2] int32, from resized pictures."""
        last = corner + self.input_px
        return _rgb_square(image[..., corner[0] : last[0], corner[1] : last[1], :], self.input_px)

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
        if isinstance(self.scale, tuple):
            values /= tf.tile(tf.constant(self.scale, tf.float32), shape[-2:-1])
        elif self.scale != 1:
            values /= self.scale
        return tf.ensure_shape(tf.reshape(values, shape), images.shape)

    def prepare(self, encoded: tf.Tensor) -> tf.Tensor:
        """A file's bytes, scalar -> what the network sees at test time, [input_px, input_px, 3] float32."""
        return self.normalise(self.fit_window(decode(encoded), self.centre))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """The inverse of `dataclasses.asdict`, also after a trip through JSON."""
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})


def _to_uint8(values: tf.Tensor) -> tf.Tensor:
    # A weighted mean of pixels is outside 0 to 255 by rounding errors at most, which are rounded away here.
    return tf.cast(tf.round(values), tf.uint8)


def _rgb_square(image: tf.Tensor, side: int) -> tf.Tensor:
    """Three channels of one, and a static shape for a square that TensorFlow knows no size of."""
    image = tf.ensure_shape(image, [*image.shape[:-3], side, side, image.shape[-1]])
    return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image


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
        scale_and_aspect: crop windows of random size and shape from the whole picture, as the authors' 2020
            release does, instead of windows of side `input_px` from the picture resized to `resize_px`.
            With s uniform from 0.5 to 1 and a, the ratio of width to height, log-uniform from 3/4 to 4/3,
            the window of an h × w picture is s √(h w a) wide and s √(h w / a) high, rounded, each at least 1
            and at most the picture's; its corner is uniform.
    """

    mirror: bool = False
    rotate_degrees: float = 0.0
    zoom: float = 0.0
    stretch: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    scale_and_aspect: bool = False

    @property
    def is_geometric(self) -> bool:
        """Whether `distort` changes anything."""
        return any((self.rotate_degrees, self.zoom, self.stretch, self.shear, self.shift))

    @staticmethod
    def draw(seed: tf.Tensor) -> tf.Tensor:
        """The random numbers for one picture, [11] float32, from [2] int, another seed for every picture."""
        return tf.random.stateless_uniform([11], seed)

    def crop(self, image: tf.Tensor, preprocessing: Preprocessing, draws: tf.Tensor) -> tf.Tensor:
        """Crop one picture to the network's input, and mirror it.

        Args:
            image: [height, width, channels] uint8, whole or resized already, see `fit_window`; whole with
                `scale_and_aspect`.
            preprocessing: its `input_px` is the side of the result.
            draws: from `draw`.

        Returns:
            [input_px, input_px, 3] uint8.
        """
        image = self._crop(image, preprocessing, draws[:4])
        return (
            tf.cond(draws[4] < 0.5, lambda: tf.reverse(image, [1]), lambda: image) if self.mirror else image
        )

    def distort(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Rotate, zoom, stretch, shear and shift cropped pictures, each by its own draws.

        Pixels that come in from outside repeat the picture's edge.

        Args:
            images: [N, side, side, 3].
            draws: [N, 11].

        Returns:
            [N, side, side, 3] float32.
        """
        images = tf.cast(images, tf.float32)
        if not self.is_geometric:
            return images
        return keras.ops.image.affine_transform(
            images,
            self._transforms(2 * draws[:, 5:] - 1, images.shape[1]),
            interpolation="bilinear",
            fill_mode="nearest",
        )

    def _crop(self, image: tf.Tensor, preprocessing: Preprocessing, draws: tf.Tensor) -> tf.Tensor:
        """A window of the picture at random, [input_px, input_px, 3] uint8, from four numbers of 0 to 1."""
        if not self.scale_and_aspect:
            room = preprocessing.resize_px - preprocessing.input_px
            return preprocessing.fit_window(image, tf.cast(draws[2:] * (room + 1), tf.int32))
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        side = (0.5 + 0.5 * draws[0]) * tf.sqrt(size[0] * size[1])
        ratio = tf.exp((2 * draws[1] - 1) * math.log(4 / 3))
        extent = tf.stack([side / tf.sqrt(ratio), side * tf.sqrt(ratio)])
        extent = tf.clip_by_value(tf.round(extent), 1.0, size)
        corner = tf.cast(draws[2:] * (size - extent + 1), tf.int32)
        last = corner + tf.cast(extent, tf.int32)
        window = image[corner[0] : last[0], corner[1] : last[1]]
        return dataclasses.replace(preprocessing, resize_px=preprocessing.input_px).fit(window)

    def _transforms(self, draws: tf.Tensor, side_px: int) -> tf.Tensor:
        """[N, 8] projective transforms from output to input pixels, from [N, 6] numbers of -1 to 1."""
        # Float64, as the last bit of float32 functions may depend on a number's position in the batch.
        turn, grow, widen, slant, right, down = tf.unstack(tf.cast(draws, tf.float64), axis=1)
        angle = turn * (self.rotate_degrees * math.pi / 180)
        zoom = tf.exp(grow * math.log1p(self.zoom))
        stretch = tf.exp(widen * math.log1p(self.stretch) / 2)
        shear = slant * self.shear
        cos, sin = tf.cos(angle), tf.sin(angle)
        # [a b; c d] = rotation · shear · scale, read from output to input
        a, b = cos * stretch / zoom, (cos * shear - sin) / (stretch * zoom)
        c, d = sin * stretch / zoom, (sin * shear + cos) / (stretch * zoom)
        centre = (side_px - 1) / 2
        offset_x = centre - a * centre - b * centre + right * self.shift * side_px
        offset_y = centre - c * centre - d * centre + down * self.shift * side_px
        none = tf.zeros_like(a)
        return tf.cast(tf.stack([a, b, offset_x, c, d, offset_y, none, none], axis=1), tf.float32)
