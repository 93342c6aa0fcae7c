"""Weights rounded to the grid of a file, each layer making up for what the layers before it lost.

    found = ep.round_weights(model, x[:200], "int4")
    print(found)
    ep.export_tflite(found.model, "model.tflite", "int4", x[:200])

Layer by layer, in the order of the graph, a kernel is rounded so that its layer's output, on the inputs that the
rounded model has, comes as near to the float model's as it can; the bias absorbs the mean of what is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Step
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.rebuild.slicing import counterparts, rebuild
from edgeprune.channels.reconstruct.linear import Linear
from edgeprune.channels.reconstruct.reconstruct import reconstruct
from edgeprune.channels.reconstruct.report import Reconstruction
from edgeprune.channels.reconstruct.ridge import Equations, Solution, Solver
from edgeprune.quantization.fake_quantize import rounded_to_grid
from edgeprune.quantization.grid_solver import GridSolver
from edgeprune.quantization.kinds import kernel_axes
from edgeprune.quantization.layer_bits import weight_bits
from edgeprune.schemes import Scheme, scheme_of
from edgeprune.types import AnyTensor, DataLike, Layer, Model, Variable


def round_weights(
    model: Model,
    data: DataLike,
    scheme: str | Scheme = "int4",
    *,
    batch_size: int = 32,
    steps: int | None = None,
    seed: int = 0,
) -> Reconstruction:
    """Round a model's weights to the grid of a file, without training, so that its outputs change least.

    A kernel's rounded weights are solved for on data: not each weight's nearest step, but those steps that together
    leave the smallest error of the layer's output. Biases absorb the mean of what is left, and batch normalizations
    its shift. Weights that are zero are kept.

    Args:
        model: a built model of `keras` 3 or `tf_keras`. It is not changed.
        data: some hundred samples as the model meets them, in any form that `model.fit` accepts. Labels are not looked
            at.
        scheme: `"int4"`, `"int8"` or `"int16x8"`, whose weights have 8 bits, or a `Scheme` of these. Activations
            are not rounded here.
        batch_size: samples at once where `data` are arrays.
        steps: batches of `data` at most.
        seed: of the choice of the places that layers are solved on.

    Returns:
        The model whose kernels are on the grid, compiled as the one passed is, with the errors of its layers and
        outputs before, that is with each weight at its nearest step, and after; and the layers that could not be
        solved, which keep the nearest steps. Neither a layer's error nor that of the outputs is ever larger than
        before.

    Raises:
        TypeError: `model` is no Keras model, or the data are in no known form.
        ValueError: the model is not built, under pruning, or cannot be followed; the scheme has no integer weights, or
            a pattern in it fits no layer; the data have no batches or do not fit the model, or what a layer returns for
            them is not finite.

    Source: Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers, 2022;
    Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, for the biases.

    Example:
        >>> found = round_weights(model, x, "int4")
        >>> found.after <= found.before
        True
        >>> kernel = found.model.get_layer("conv").kernel.numpy()[..., 0]
        >>> bool(len(np.unique(kernel)) <= 15)
        True
    """
    scheme = scheme_of(scheme)
    if scheme.weight_bits > 8:
        raise ValueError(f"round_weights needs a scheme with weights in integers, such as 'int4'; got {scheme.name!r}.")
    flavor.check_model(model)
    flavor.check_kernels_can_be_rounded(model)
    graph = trace(model)
    return reconstruct(_rounded(graph, scheme), data, batch_size=batch_size, steps=steps, seed=seed)


@dataclass(frozen=True, eq=False)
class _Kernel:
    """A kernel that is rounded.

    Attributes:
        name: its path name.
        axes: those along which each entry has a scale of its own, counted from the end.
        num_bits: of its integers.
        mask: bool array, False where it is kept at zero.
    """

    name: str
    axes: tuple[int, ...]
    num_bits: int
    mask: np.ndarray


def _rounded(graph: ChannelGraph, scheme: Scheme) -> RoundedWeights:
    """A copy of a model with rounded kernels, each weight at its nearest step."""
    copy = rebuild(graph, graph.full_mask())
    layers = counterparts(graph, copy)
    bits = weight_bits(graph.walked, scheme, graph.names)
    kernels = {}
    for layer in flavor.layers_of(graph.walked):
        for name, axes in kernel_axes(layer, scheme.per_channel_dense).items() if id(layer) in bits else ():
            variable, new = getattr(layer, name), getattr(layers[id(layer)], name)
            values = flavor.array_of(variable)
            new.assign(np.asarray(rounded_to_grid(values.astype(np.float32), axes, bits[id(layer)])))
            path = f"{graph.names[id(layer)]}/{name}"
            kernels[id(variable)] = kernels[id(new)] = _Kernel(path, axes, bits[id(layer)], values != 0)
    return RoundedWeights(graph, copy, layers, kernels)


class RoundedWeights:
    """Weights that were rounded: `edgeprune.channels.reconstruct.removal.Removal`, where every width is kept.

    Args:
        graph: the calls of the original model.
        smaller: a copy of it with rounded kernels.
        counterparts: `id` of a layer of the original to that of the copy.
        kernels: by `id` of the variable, of the original and of the copy, those that were rounded.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        smaller: Model,
        counterparts: Mapping[int, Layer],
        kernels: Mapping[int, _Kernel],
    ) -> None:
        self.graph, self.smaller, self.counterparts = graph, smaller, counterparts
        self.changes: Mapping[int, Mapping[str, Any]] = {}
        self._kernels = kernels

    def is_changed(self, step: Step) -> bool:
        """Whether a kernel of it is rounded."""
        return self.reduces(step.layer)

    def reduces(self, layer: Layer) -> bool:
        """Whether a kernel of a layer is rounded."""
        return any(id(weight) in self._kernels for weight in flavor.weights_of(layer))

    def left_of_tensor(self, place: int, tensor: AnyTensor, contracted: Sequence[int] = ()) -> Any:
        """All of it."""
        return tensor

    def left_of_inputs(self, linear: Linear, x: np.ndarray) -> np.ndarray:
        """All of it."""
        return x

    def wanted_kernel(self, linear: Linear) -> np.ndarray:
        """All of it."""
        return flavor.array_of(linear.kernel)

    def solver(self, linear: Linear) -> Solver:
        """Of a rounded kernel one that keeps it on the grid; others stay, and the bias takes up what it can."""
        kernel = self._kernels.get(id(linear.kernel))
        if kernel is None:
            return _bias_alone
        return GridSolver(linear, kernel.num_bits, not kernel.axes, kernel.mask)

    def to_solve(self, layer: Layer) -> Iterator[tuple[Variable, str]]:
        """Those that were rounded."""
        for weight in flavor.weights_of(layer):
            if id(weight) in self._kernels:
                yield weight, self._kernels[id(weight)].name


def _bias_alone(
    matrix: np.ndarray, wanted: np.ndarray, fit: Equations, held_out: Equations, intercept: bool
) -> Solution:
    """The solver of weights that do not change."""
    return Solution.of(np.zeros_like(matrix), fit + held_out, intercept, np.inf)
