"""An entry of the catalogue, and the names of a Keras that its nets are written with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

from edgeprune import flavor as flavors

NETS: dict[str, Net] = {}
KERAS_3_ONLY = {"flavors": (flavors.KERAS_3,)}
TF_KERAS_ONLY = {"flavors": (flavors.TF_KERAS,)}


@dataclass(frozen=True)
class Net:
    """A net and, of an architecture, what a trace of it must find.

    Attributes:
        build: accepts the names of a Keras, returns a model.
        prunable: the names of the groups that can be pruned; None where no test asks for them.
        frozen: the names of the groups that must be kept.
        flavors: the Kerases it is written for.
        notes: how many layers are reported that mix statistics across channels.
    """

    build: Callable[[Any], Any]
    prunable: list[str] | None
    frozen: list[str]
    flavors: tuple[str, ...] = (flavors.KERAS_3, flavors.TF_KERAS)
    notes: int = 0


def net(prunable: str | None = None, frozen: str = "head", **more: Any) -> Callable[[Callable], Callable]:
    """Put a net into the catalogue under its function's name."""

    def register(build: Callable) -> Callable:
        if build.__name__ in NETS:
            raise ValueError(f"There are two nets named {build.__name__}.")
        NETS[build.__name__] = Net(build, None if prunable is None else prunable.split(), frozen.split(), **more)
        return build

    return register


class Names:
    """What a net is written with: the layers of a Keras, `Model`, `Sequential`, and `ops` by the names of Keras 3."""

    def __init__(self, flavor: str):
        keras = flavors.keras_module(flavor)
        self.Model, self.Sequential = keras.Model, keras.Sequential
        self.ops = keras.ops if flavor == flavors.KERAS_3 else tensorflow_functions()
        self._layers = keras.layers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layers, name)


written_in = cache(Names)


def tensorflow_functions() -> SimpleNamespace:
    """The functions that stand for `keras.ops` in a graph of tf_keras."""
    import tensorflow as tf

    return SimpleNamespace(
        concatenate=tf.concat, einsum=tf.einsum, expand_dims=tf.expand_dims, matmul=tf.matmul,
        max=tf.reduce_max, mean=tf.reduce_mean, relu=tf.nn.relu, relu6=tf.nn.relu6,
        reshape=tf.reshape, roll=tf.roll, softmax=tf.nn.softmax, split=tf.split, stack=tf.stack,
        sum=tf.reduce_sum, transpose=tf.transpose,
    )  # fmt: skip
