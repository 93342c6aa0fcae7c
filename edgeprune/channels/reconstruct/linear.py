"""Layers whose output, before the activation, is a matrix times what they read: each as rows and a matrix.

Source of the idea: He et al., Channel Pruning for Accelerating Very Deep Neural Networks, 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.rules.kernels import depthwise_kernel
from edgeprune.channels.reconstruct.windows import Chosen, window_tables, windows
from edgeprune.types import Layer, Variable


class Linear(Protocol):
    """A layer as a matrix for each of its groups of channels.

    Attributes:
        kernel: the variable that the matrix is made of.
        contracted: the axes of the kernel that are summed over, besides its sizes.
        bias: what is added, where it can be solved for; else None.
    """

    kernel: Variable
    contracted: tuple[int, ...]
    bias: Variable | None

    def places(self, shape: Sequence[int]) -> int:
        """The number of places of the output for one sample of an input of this shape."""

    def rows(self, x: np.ndarray, chosen: Chosen) -> np.ndarray:
        """What is read at some places: float64 array (groups, places, inputs)."""

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """Values of the kernel as an array (groups, inputs, outputs)."""

    def kernel_of(self, matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """What `matrix` makes of a kernel of this shape, as that kernel."""

    def shift_of(self, shift: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """A number for each output, (groups, outputs), where it belongs in a bias of this shape."""


class _Dense:
    """A kernel (inputs, outputs) along the last axis."""

    contracted: tuple[int, ...] = (0,)

    def __init__(self, layer: Layer) -> None:
        self.kernel, self.bias = layer.kernel, layer.bias

    def places(self, shape: Sequence[int]) -> int:
        return math.prod(shape[1:-1])

    def rows(self, x: np.ndarray, chosen: Chosen) -> np.ndarray:
        flat = x.reshape(len(x), -1, x.shape[-1])
        return flat[chosen.samples, chosen.places].astype(np.float64)[None]

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        return kernel.astype(np.float64)[None]

    def kernel_of(self, matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return matrix.reshape(shape)

    def shift_of(self, shift: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return shift.reshape(shape)


class _Windowed:
    """A kernel that is moved over the places of its input."""

    transposed = False

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.kernel, self.bias = self._kernel(), layer.bias
        self.contracted = self._contracted(len(self.kernel.shape))

    def _kernel(self) -> Variable:
        return self.layer.kernel

    def _contracted(self, rank: int) -> tuple[int, ...]:
        return (rank - 2,)

    def _tables(self, shape: Sequence[int]) -> list[np.ndarray]:
        layer = self.layer
        to = self._last(layer.compute_output_shape(tuple(shape)))[1:-1] if self.transposed else None
        sizes = self._last(shape)[1:-1]
        return window_tables(sizes, layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding, to)

    def _last(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape with the channels last."""
        first = getattr(self.layer, "data_format", None) == "channels_first"
        return (shape[0], *shape[2:], shape[1]) if first else tuple(shape)

    def places(self, shape: Sequence[int]) -> int:
        return math.prod(len(table) for table in self._tables(shape))

    def windows(self, x: np.ndarray, chosen: Chosen) -> np.ndarray:
        """Float64 array (places, taps, channels)."""
        tables = self._tables(x.shape)
        if getattr(self.layer, "data_format", None) == "channels_first":
            x = np.moveaxis(x, 1, -1)
        return windows(x, tables, chosen).astype(np.float64)


class _Convolution(_Windowed):
    """A kernel (*sizes, inputs / groups, outputs)."""

    def rows(self, x: np.ndarray, chosen: Chosen) -> np.ndarray:
        read = self.windows(x, chosen)
        count, taps, channels = read.shape
        grouped = read.reshape(count, taps, -1, self._read_by_each(channels)).transpose(2, 0, 1, 3)
        return grouped.reshape(len(grouped), count, -1)

    def _read_by_each(self, channels: int) -> int:
        """How many of the input's channels an output reads; groups of one lose channels as whole groups."""
        return min(self.kernel.shape[-2], channels)

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        groups = getattr(self.layer, "groups", 1)
        grouped = kernel.reshape(-1, kernel.shape[-2], groups, kernel.shape[-1] // groups)
        return grouped.transpose(2, 0, 1, 3).reshape(groups, -1, grouped.shape[-1]).astype(np.float64)

    def kernel_of(self, matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        groups, _, outputs = matrix.shape
        return matrix.reshape(groups, -1, shape[-2], outputs).transpose(1, 2, 0, 3).reshape(shape)

    def shift_of(self, shift: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return shift.reshape(shape)


class _Transposed(_Convolution):
    """A kernel (*sizes, outputs, inputs)."""

    transposed = True

    def _contracted(self, rank: int) -> tuple[int, ...]:
        return (rank - 1,)

    def _read_by_each(self, channels: int) -> int:
        return channels

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        return super().matrix(np.swapaxes(kernel, -1, -2))

    def kernel_of(self, matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        swapped = super().kernel_of(matrix, (*shape[:-2], shape[-1], shape[-2]))
        return np.swapaxes(swapped, -1, -2)


class _Depthwise(_Windowed):
    """A kernel (*sizes, channels, multiplier): each channel is a group of its own."""

    def _kernel(self) -> Variable:
        return depthwise_kernel(self.layer)

    def _contracted(self, rank: int) -> tuple[int, ...]:
        return ()

    def rows(self, x: np.ndarray, chosen: Chosen) -> np.ndarray:
        return self.windows(x, chosen).transpose(2, 0, 1)

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(-1, *kernel.shape[-2:]).transpose(1, 0, 2).astype(np.float64)

    def kernel_of(self, matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return matrix.transpose(1, 0, 2).reshape(shape)

    def shift_of(self, shift: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return shift.reshape(shape)


class _Separable(_Windowed):
    """The pointwise kernel (1, ..., inputs * multiplier, outputs); what it reads comes from the depthwise one."""

    def _kernel(self) -> Variable:
        return self.layer.pointwise_kernel

    def rows(self, x: np.ndarray, chosen: Chosen) -> np.ndarray:
        kernel = flavor.array_of(self.layer.depthwise_kernel).astype(np.float64)
        made = np.einsum("ntc,tcm->ncm", self.windows(x, chosen), kernel.reshape(-1, *kernel.shape[-2:]))
        return made.reshape(1, len(made), -1)

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(1, *kernel.shape[-2:]).astype(np.float64)

    def kernel_of(self, matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return matrix.reshape(shape)

    def shift_of(self, shift: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return shift.reshape(shape)


class _Einsum:
    """EinsumDense: the letters of its equation are groups, inputs, outputs or places."""

    def __init__(self, layer: Layer) -> None:
        terms, _, self._result = layer.equation.replace(" ", "").partition("->")
        self._taken, self._weights = terms.split(",")
        self.kernel = layer.kernel
        self._sizes = dict(zip(self._weights, layer.kernel.shape, strict=True))
        self._groups = [one for one in self._weights if one in self._taken and one in self._result]
        self._inputs = [one for one in self._weights if one in self._taken and one not in self._result]
        self._outputs = [one for one in self._weights if one not in self._taken]
        self.contracted = tuple(map(self._weights.index, self._inputs))
        self.bias = layer.bias if self._is_one_for_each_output(layer.bias) else None

    @property
    def is_product(self) -> bool:
        """Whether the samples are apart, and nothing is summed that the kernel does not weigh."""
        samples = self._taken.replace("...", "0")[0]
        summed = set(self._taken) - set(self._weights) - set(self._result)
        return samples not in self._weights and not summed

    def _is_one_for_each_output(self, bias: np.ndarray) -> bool:
        if bias is None:
            return False
        result = self._result.replace("...", "0" * len(bias.shape))
        along = {one for one, size in zip(reversed(result), reversed(bias.shape), strict=False) if size > 1}
        return along == {one for one in (*self._groups, *self._outputs) if self._sizes[one] > 1}

    def _letters(self, rank: int) -> tuple[str, list[str]]:
        """A letter for each axis of an input of this rank, and those of the places."""
        hidden = "0123456789"[: rank - len(self._taken.replace("...", ""))]  # the axes under an ellipsis
        taken = self._taken.replace("...", hidden)
        return taken, [one for one in taken[1:] if one not in self._weights]

    def places(self, shape: Sequence[int]) -> int:
        taken, places = self._letters(len(shape))
        return math.prod(shape[taken.index(one)] for one in places)

    def rows(self, x: np.ndarray, chosen: Chosen) -> np.ndarray:
        taken, places = self._letters(x.ndim)
        letters = [taken[0], *places, *self._groups, *self._inputs]
        turned = x.transpose([taken.index(one) for one in letters])
        groups = math.prod(turned.shape[1 + len(places) :][: len(self._groups)])
        flat = turned.reshape(len(x), self.places(x.shape), groups, -1)
        return flat[chosen.samples, chosen.places].transpose(1, 0, 2).astype(np.float64)

    @property
    def _order(self) -> list[int]:
        return [self._weights.index(one) for one in (*self._groups, *self._inputs, *self._outputs)]

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        turned = kernel.transpose(self._order)
        groups = math.prod(turned.shape[: len(self._groups)])
        outputs = math.prod(turned.shape[len(turned.shape) - len(self._outputs) :])
        return turned.reshape(groups, -1, outputs).astype(np.float64)

    def kernel_of(self, matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return matrix.reshape([shape[axis] for axis in self._order]).transpose(np.argsort(self._order))

    def shift_of(self, shift: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        letters = [*self._groups, *self._outputs]
        turned = shift.reshape([self._sizes[one] for one in letters])
        return turned.transpose([letters.index(one) for one in self._result if one in letters]).reshape(shape)


class _InputKernel(_Dense):
    """The kernel (inputs, gates * units) of a recurrent cell that reads the sequence."""

    def shift_of(self, shift: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return _first_row(shift, shape)


class _ConvolvedInputKernel(_Convolution):
    """The same of a cell that convolves each step."""

    def places(self, shape: Sequence[int]) -> int:
        return shape[1] * super().places((shape[0], *shape[2:]))

    def rows(self, x: np.ndarray, chosen: Chosen) -> np.ndarray:
        inside = super().places((len(x), *x.shape[2:]))
        steps, places = np.divmod(chosen.places, inside)
        folded = x.reshape(-1, *x.shape[2:])
        return super().rows(folded, Chosen(chosen.samples * x.shape[1] + steps, places))


class _StateKernel(_Dense):
    """The kernel (units, gates * units) of a recurrent cell that reads its state."""

    def __init__(self, cell: Layer) -> None:
        self.kernel, self.bias = cell.recurrent_kernel, cell.bias

    def shift_of(self, shift: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        return _first_row(shift, shape)[::-1] if len(shape) > 1 else _first_row(shift, shape)


def _first_row(shift: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A shift in a bias that may have a second row, for the recurrent kernel (GRU)."""
    values = np.zeros(shape)
    values[(0,) * (len(shape) - 1)] = shift.reshape(-1)
    return values


_KINDS: dict[str, Callable[[Any], Any]] = {
    "Dense": _Dense,
    "EinsumDense": _Einsum,
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _Convolution),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _Transposed),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _Depthwise),
    **dict.fromkeys(
        ("SeparableConv1D", "SeparableConv2D", "SeparableConvolution1D", "SeparableConvolution2D"), _Separable
    ),
}
_CELLS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("SimpleRNNCell", "GRUCell", "LSTMCell"), _InputKernel),
    "ConvLSTMCell": _ConvolvedInputKernel,
}


@dataclass(frozen=True, eq=False)
class Part:
    """A layer that is linear in what it is called on, or one inside a layer.

    Attributes:
        layer: the layer.
        linear: its rows and matrix.
        folded: how many axes after the first count as samples too (`TimeDistributed`).
        inside: whether what it is called on is seen only inside the outer layer (a projection of attention).
        cell: of a kernel that reads what flows between the cells and the steps of `layer`, its cell.
        state: whether that is the cell's own state.
    """

    layer: Layer
    linear: Linear
    folded: int = 0
    inside: bool = False
    cell: Layer | None = None
    state: bool = False


def linear_parts(layer: Layer) -> list[Part]:
    """The linear parts of a layer, in the order of its layers."""
    if flavor.function_name(layer) is not None:
        return []
    folded = 0
    while flavor.is_time_distributed(layer) or flavor.built_in_kind(layer) == "SpectralNormalization":
        folded += flavor.is_time_distributed(layer)
        layer = layer.layer
    if flavor.built_in_kind(layer) == "Bidirectional":
        return [Part(one.layer, one.linear, folded) for half in _halves(layer) for one in linear_parts(half)]
    if (linear := _linear(layer)) is not None:
        return [Part(layer, linear, folded)]
    inner = [] if folded else list(layer._flatten_layers(include_self=False))
    made = [(one, _linear(one)) for one in inner]
    return [Part(one, linear, inside=True) for one, linear in made if linear is not None]


def cell_parts(layer: Layer) -> list[Part]:
    """The kernels of a recurrent layer, or of both halves of a bidirectional one, that read what its cells make."""
    if flavor.built_in_kind(layer) == "Bidirectional":
        return [part for half in _halves(layer) for part in cell_parts(half)]
    if flavor.function_name(layer) is not None or not flavor.is_recurrent(layer):
        return []
    parts = []
    for number, cell in enumerate(getattr(layer.cell, "cells", [layer.cell])):
        if _CELLS.get(type(cell).__name__) is _InputKernel:
            parts += [Part(layer, _InputKernel(cell), cell=cell)] if number else []
            # A GRU that resets its state before the product has several inputs for one kernel.
            resets_before = not getattr(cell, "reset_after", True)
            parts += [] if resets_before else [Part(layer, _StateKernel(cell), cell=cell, state=True)]
    return parts


def _halves(layer: Layer) -> list[Any]:
    return [layer.forward_layer, layer.backward_layer]


def _linear(layer: Layer) -> Linear | None:
    if flavor.is_recurrent(layer):
        cell = getattr(layer.cell, "cells", [layer.cell])[0]
        return _CELLS[type(cell).__name__](cell) if type(cell).__name__ in _CELLS else None
    kind = flavor.built_in_kind(layer)
    made = _KINDS[kind](layer) if kind in _KINDS else None
    return None if isinstance(made, _Einsum) and not made.is_product else made
