"""Look numbers up and count categories by comparisons, which TFLite has, for as long as a model is traced.

TFLite's hash tables have strings on one side, and it has no operator that counts. So `IntegerLookup`, and the modes
`"multi_hot"`, `"count"` and `"tf_idf"` of every preprocessing layer (in `tf_keras` `"one_hot"` too), would not convert.
What is computed here is the same in whole numbers, so that quantizing the file leaves it exact. A file cannot raise an
error: where Keras would, at a number outside a vocabulary without an OOV index or beyond `num_tokens`, an index is -1
and a category counts nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune import flavor
from edgeprune.types import Model, TfTensor

if TYPE_CHECKING:
    import tensorflow as tf


@contextlib.contextmanager
def compared(model: Model) -> Iterator[None]:
    """While the body runs, the lookup layers of a model find numbers, and TensorFlow counts, by comparisons."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_counting_by_comparison())
        for layer in flavor.layers_of(model):
            table = getattr(layer, "lookup_table", None)
            if table is not None and table.key_dtype.is_integer and table.value_dtype.is_integer:
                stack.enter_context(flavor.overridden(layer, lookup_table=_NumberTable(table)))
        yield


class _NumberTable:
    """A table from integers to integers, without a resource of TensorFlow behind it."""

    def __init__(self, table: tf.lookup.StaticHashTable):
        keys, values = table.export()
        self._keys, self._values = keys.numpy(), values.numpy()
        self._default = table.default_value.numpy()

    def lookup(self, numbers: TfTensor) -> Any:
        """The value of each number, the default where there is none."""
        import tensorflow as tf

        places = tf.range(1, len(self._keys) + 1)
        found = tf.reduce_max(tf.where(numbers[..., tf.newaxis] == self._keys, places, 0), axis=-1)
        return tf.gather(np.append(self._default, self._values), found)


@contextlib.contextmanager
def _counting_by_comparison() -> Iterator[None]:
    """While the body runs, `tf.math.bincount` counts a known number of categories with operators that TFLite has.

    Both Kerases count with it, and what it computes is the same, so other threads may call it meanwhile.
    """
    import tensorflow as tf

    modules = (tf.math, tf.compat.v2.math)  # Keras 3 calls the one, tf_keras the other
    own = [module.bincount for module in modules]
    try:
        for module, function in zip(modules, own, strict=True):
            module.bincount = _comparing(function)
        yield
    finally:
        for module, function in zip(modules, own, strict=True):
            module.bincount = function


def _comparing(bincount: Callable[..., Any]) -> Any:
    import tensorflow as tf

    def compare(
        arr: TfTensor,
        weights: TfTensor | None = None,
        minlength: int | None = None,
        maxlength: int | None = None,
        dtype: tf.DType = tf.int32,
        name: str | None = None,
        axis: int | None = None,
        **options: object,
    ) -> Any:
        known = isinstance(arr, tf.Tensor) and arr.shape.is_fully_defined() and minlength and minlength == maxlength
        if axis != -1 or not known:
            return bincount(arr, weights, minlength, maxlength, dtype, name, axis, **options)
        # Not by slicing: the converter does not know the shape of what a table of strings returns.
        hits = tf.reshape(arr, (*arr.shape, 1)) == tf.range(minlength, dtype=arr.dtype)
        if weights is not None:
            return tf.reduce_sum(tf.where(hits, weights[..., tf.newaxis], 0), axis=-2)
        reduced = tf.reduce_max if options.get("binary_output") else tf.reduce_sum
        return tf.cast(reduced(tf.cast(hits, tf.int32), axis=-2), dtype)

    return compare
