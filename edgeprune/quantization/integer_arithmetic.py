"""How the kernels of LiteRT bring a sum of products to the steps of its output, one rule for each set of kernels.

Values are whole numbers in tensors of float64: steps of an integer type, counted from its zero point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from edgeprune.types import TfTensor

Kernels: TypeAlias = Literal["xnnpack", "ruy", "reference"]
_ADDED_BITS = 20  # of precision, in which sums of two tensors are computed


@dataclass(frozen=True)
class Steps:
    """The steps of an int8 tensor.

    Attributes:
        scale: real value of one step, as a file stores it.
        zero_point: the stored value that means 0.
    """

    scale: float
    zero_point: int

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest value, in steps from zero."""
        return -128 - self.zero_point, 127 - self.zero_point

    @classmethod
    def of_range(cls, low: float, high: float) -> Steps:
        """The 256 steps of a range with zero on one of them, as the converter finds them.

        Example:
            >>> Steps.of_range(-0.5, 127 / 256)
            Steps(scale=0.00390625, zero_point=0)
        """
        scale = (float(high) - float(low)) / 255
        return cls(float(np.float32(scale)), int(np.clip(round(-128 - float(low) / scale), -128, 127)))


def rescaled(sums: TfTensor, factors: np.ndarray | float, kernels: Kernels) -> TfTensor:
    """Sums times real factors, rounded as the kernels do it.

    XNNPACK multiplies in float32 and rounds once, halves to even. The reference kernels multiply with a whole number of
    31 bits, round, shift, and round again, halves away from zero; ruy, which LiteRT's own convolutions use, rounds
    these up.

    Args:
        sums: `(..., channels)`, whole numbers of 32 bits.
        factors: one, or one for each channel.
        kernels: `"xnnpack"`, `"ruy"` or `"reference"`.

    Source: https://arxiv.org/abs/1712.05877, section 2.2; `MultiplyByQuantizedMultiplier` in TensorFlow Lite.

    Example:
        >>> float(rescaled(np.float64(5), 0.5, "xnnpack")), float(rescaled(np.float64(5), 0.5, "reference"))
        (2.0, 3.0)
    """
    import tensorflow as tf

    if kernels == "xnnpack":
        product = tf.cast(sums, tf.float32) * tf.constant(factors, tf.float32)
        return tf.cast(tf.round(product), tf.float64)
    return fixed_point_product(sums, *fixed_point(factors), halves_up=kernels == "ruy")


def fixed_point(factors: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Real factors as whole numbers of 31 bits and powers of two.

    Returns:
        Multipliers and shifts, int64: a factor is about `multiplier / 2**31 * 2**shift`.

    Example:
        >>> [int(number) for number in fixed_point(0.75)]
        [1610612736, 0]
    """
    fractions, shifts = np.frexp(np.asarray(factors, np.float64))
    multipliers = np.floor(fractions * 2.0**31 + 0.5).astype(np.int64)
    carried = multipliers == 2**31
    return np.where(carried, 2**30, multipliers), shifts.astype(np.int64) + carried


def fixed_point_product(
    sums: TfTensor, multipliers: np.ndarray, shifts: np.ndarray, *, halves_up: bool = False
) -> TfTensor:
    """Sums times factors of `fixed_point`, rounded twice: behind the product, and behind the shift.

    Args:
        sums: whole numbers of 32 bits.
        multipliers: one, or one for each channel.
        shifts: as many.
        halves_up: whether the second rounding is half up, or half away from zero.
    """
    import tensorflow as tf

    left, right = np.maximum(shifts, 0), np.maximum(-shifts, 0)
    products = tf.cast(sums, tf.int64) * (2**left * multipliers)
    high = tf.math.floordiv(products + 2**30, 2**31)  # halves up: the nudge of a negative one is smaller by one
    mask = 2**right - 1
    halves = mask >> 1 if halves_up else tf.where(high < 0, (mask >> 1) + 1, mask >> 1)
    low = tf.bitwise.bitwise_and(high, mask)
    shifted = tf.bitwise.right_shift(high, tf.broadcast_to(tf.constant(right, tf.int64), tf.shape(high)))
    return tf.cast(shifted, tf.float64) + tf.cast(low > halves, tf.float64)


def added(a: TfTensor, b: TfTensor, scales: Sequence[float], scale: float, kernels: Kernels) -> TfTensor:
    """Two tensors of their own steps, added on the steps of the sum.

    Args:
        a: whole numbers.
        b: whole numbers.
        scales: of `a` and of `b`.
        scale: of the sum.
        kernels: `"xnnpack"` or `"reference"`.
    """
    import tensorflow as tf

    if kernels == "xnnpack":
        ratios = np.asarray(scales, np.float32) / np.float32(scale)
        exponent = int(np.frexp(ratios.max())[1]) - 1
        shift = _ADDED_BITS - exponent
        factors = np.rint(ratios.astype(np.float64) * 2.0**shift)
        return tf.floor((a * factors[0] + b * factors[1]) / 2.0**shift + 0.5)
    twice = 2.0 * max(scales)
    parts = [
        fixed_point_product(part * 2.0**_ADDED_BITS, *fixed_point(own / twice))
        for part, own in ((a, scales[0]), (b, scales[1]))
    ]
    return fixed_point_product(parts[0] + parts[1], *fixed_point(twice / (2.0**_ADDED_BITS * scale)))


def rounded_away(values: TfTensor) -> TfTensor:
    """Rounded to whole numbers, halves away from zero."""
    import tensorflow as tf

    return tf.sign(values) * tf.floor(tf.abs(values) + 0.5 + 1e-9)


def mean(sums: TfTensor, count: int, ratio: float, kernels: Kernels) -> TfTensor:
    """The mean of `count` values from their sum, on the steps of the output.

    Args:
        sums: whole numbers.
        count: how many were added up.
        ratio: the scale of the values over that of the mean.
        kernels: `"xnnpack"` or `"reference"`.
    """

    if kernels == "xnnpack":
        return rescaled(sums, float(np.float32(ratio) / np.float32(count)), kernels)
    multipliers, shifts = fixed_point(ratio)
    bits = min(count.bit_length() - 1, 32, 31 + int(shifts))
    return fixed_point_product(sums, (multipliers << bits) // count, shifts - bits)
