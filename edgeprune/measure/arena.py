"""An estimate of what the interpreter for microcontrollers needs beside the activations, from a Keras model's layers.

It keeps structures of its own, and for a moment, before the activations take their places, it needs memory to prepare
each operator and to find those places. All figures are bytes on a machine with 64 bits, found from `print_allocations`
and the smallest arenas that run; a test compares the sums with the interpreter.

Source: https://github.com/tensorflow/tflite-micro, `MicroAllocator` and the kernels' `Prepare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.types import Layer

_INTERPRETER = 504
_PORT = 96  # an input or output of the model
# An operator with weights and one without: its node, its tensors and its kernel's data.
_KERNEL_OPERATOR, _OPERATOR = 236, 160
_CHANNEL = 8  # one with a scale of its own: a multiplier and a shift
_SOFTMAX_TABLES = 2 * 1026  # of a softmax in int16
# To prepare an operator, and a zero point for each of its channels with a scale of its own.
_PREPARING, _PREPARING_CHANNEL = 240, 4
# To find the places of the tensors of an operator with weights, of one without, and of an input of the model.
_PLACING_KERNEL, _PLACING, _PLACING_INPUT = 154, 105, 90

_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


@dataclass(frozen=True)
class LayerOperators:
    """The operators that one layer becomes.

    Attributes:
        kernels: how many of them have weights.
        others: how many have none.
        channels: how many channels of each kernel have a scale of their own.
        quantized: whether they compute in integers.
        tables: bytes of the tables that are kept for a softmax.
    """

    kernels: int
    others: int
    channels: int
    quantized: bool
    tables: int

    @property
    def kept(self) -> int:
        """What is kept for them for good."""
        structures = self.kernels * _KERNEL_OPERATOR + self.others * _OPERATOR
        return structures + self.kernels * self.channels * _CHANNEL + self.tables

    @property
    def preparing(self) -> int:
        """What one of them needs while it is prepared."""
        return _PREPARING + (_PREPARING_CHANNEL * self.channels if self.quantized else 0)

    @property
    def placing(self) -> int:
        """What their part of the plan of all tensors needs."""
        return self.kernels * _PLACING_KERNEL + self.others * _PLACING


def layer_operators(
    layer: Layer, kind: str, activation: str | None, operators: int, width: int, dtype: str, per_channel_dense: bool
) -> LayerOperators:
    """Count the operators of a layer.

    Args:
        layer: a layer of either Keras.
        kind: its class.
        activation: the name of its activation, `None` without one.
        operators: how many operators it becomes.
        width: how many channels it makes.
        dtype: `"int8"`, `"int16"`, `"float16"` or `"float32"`.
        per_channel_dense: whether each unit of a dense layer has a scale of its own.
    """
    kernels = sum(getattr(layer, name, None) is not None for name in _KERNELS)
    quantized = dtype in ("int8", "int16")
    shared = kind == "Dense" and not (quantized and per_channel_dense)
    softmax = "softmax" in (activation, kind.lower())
    return LayerOperators(
        kernels=kernels,
        others=max(operators - kernels, 0),
        channels=0 if shared or not kernels else width,
        quantized=quantized,
        tables=_SOFTMAX_TABLES if softmax and dtype == "int16" else 0,
    )


def arena_bytes(layers: Sequence[LayerOperators], planned: int, inputs: int, outputs: int) -> tuple[int, int]:
    """What the interpreter keeps, and its whole arena.

    Args:
        layers: the operators of each layer.
        planned: what the activations need, as the interpreter places them.
        inputs: how many inputs the model has.
        outputs: how many outputs it has.

    Returns:
        Bytes kept for good, and bytes of the smallest arena that runs.
    """
    ports = _PORT * (inputs + outputs)
    kept = _INTERPRETER + ports + sum(row.kept for row in layers)
    # The structures of the model's inputs and outputs are made once all tensors have their places.
    placing = sum(row.placing for row in layers) + _PLACING_INPUT * inputs - ports
    return kept, kept + max(planned, placing, *(row.preparing for row in layers))
