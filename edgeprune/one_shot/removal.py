"""Weights that were set to zero, as reconstruction needs to know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Step
from edgeprune.channels.reconstruct.linear import Linear
from edgeprune.channels.reconstruct.ridge import Solver, least_squares
from edgeprune.one_shot.planned import PlannedWeight
from edgeprune.one_shot.sparse_solver import SparseSolver
from edgeprune.types import AnyTensor, Layer, Model, Variable


class WeightRemoval:
    """Weights that were set to zero: `edgeprune.channels.reconstruct.removal.Removal`, where every width is kept.

    Args:
        graph: the calls of the original model.
        smaller: a copy of it with the zeros.
        counterparts: `id` of a layer of the original to that of the copy.
        planned: what was set to zero.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        smaller: Model,
        counterparts: Mapping[int, Layer],
        planned: Sequence[PlannedWeight],
    ) -> None:
        self.graph, self.smaller, self.counterparts = graph, smaller, counterparts
        self.changes: Mapping[int, Mapping[str, Any]] = {}
        self._planned = {id(one.variable): one for one in planned if one.zeros}
        self._by_copy = {id(one.variable_in(counterparts)): one for one in self._planned.values()}
        own = (step for step in graph.steps if flavor.is_own_weight(step.layer))
        self._own_weights = {step.outputs[0]: self._planned.get(id(step.layer.variable)) for step in own}

    def is_changed(self, step: Step) -> bool:
        """Whether a weight of it has new zeros."""
        return self.reduces(step.layer) or self._own_weights.get(step.outputs[0]) is not None

    def reduces(self, layer: Layer) -> bool:
        """Whether a weight of a layer has new zeros."""
        return any(id(weight) in self._planned for weight in flavor.weights_of(layer))

    def left_of_tensor(self, place: int, tensor: AnyTensor, contracted: Sequence[int] = ()) -> Any:
        """All of it, but for the zeros of a weight that a composite layer uses itself."""
        planned = self._own_weights.get(place)
        if planned is None:
            return tensor
        dtype: Any = tensor.dtype
        return tensor * planned.mask.astype(dtype.as_numpy_dtype)

    def left_of_inputs(self, linear: Linear, x: np.ndarray) -> np.ndarray:
        """All of it."""
        return x

    def wanted_kernel(self, linear: Linear) -> np.ndarray:
        """All of it."""
        return flavor.array_of(linear.kernel)

    def solver(self, linear: Linear) -> Solver:
        """Of a kernel with new zeros one that keeps as many; of others least squares for all weights."""
        planned = self._by_copy.get(id(linear.kernel))
        if planned is None:
            return least_squares
        return SparseSolver(linear, planned.mask, planned.run.ranked_together(planned.mask.shape))

    def to_solve(self, layer: Layer) -> Iterator[tuple[Variable, str]]:
        """Those with new zeros."""
        for weight in flavor.weights_of(layer):
            if id(weight) in self._planned:
                yield weight, self._planned[id(weight)].name
