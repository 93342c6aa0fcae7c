"""The plan: which weights of a model become zero. It can be read before anything is built.

plan = plan_weights(model, sparsity=0.5)
print(plan)
found = plan.reconstruct(data)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import by_reason
from edgeprune.channels.graph.trace import garbage_collection_off, trace
from edgeprune.channels.reconstruct.reconstruct import reconstruct
from edgeprune.channels.reconstruct.report import Reconstruction
from edgeprune.data.batches import check_data
from edgeprune.number_checks import check_seed
from edgeprune.one_shot.planned import PlannedWeight
from edgeprune.one_shot.removal import WeightRemoval
from edgeprune.progress import status
from edgeprune.text_table import text_table
from edgeprune.types import DataLike, Layer, Model


@dataclass(frozen=True, eq=False)
class WeightPlan:
    """Which weights of a model become zero. `plan_weights` returns one; it never changes, and neither does the model.

    Attributes:
        model: the model the plan is for.
        weights: the weights that get zeros, each with its mask.
        unprunable: path names of the layers with weights that get none, each with the reason.
    """

    model: Model
    weights: tuple[PlannedWeight, ...]
    unprunable: Mapping[str, str]

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """By path name (`"block/conv/kernel"`) a bool array of the weight's shape, True where the value is kept."""
        return {one.name: one.mask for one in self.weights}

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over all weights of the plan, 0 to 1."""
        return sum(one.zeros for one in self.weights) / max(sum(one.mask.size for one in self.weights), 1)

    def __str__(self) -> str:
        rows = [
            (one.layer, one.weight, str(one.mask.shape), *_figures(one.mask.size, one.zeros)) for one in self.weights
        ]
        totals = (sum(one.mask.size for one in self.weights), sum(one.zeros for one in self.weights))
        rows.append(("total", "", "", *_figures(*totals)))
        table = text_table(("layer", "weight", "shape", "values", "zeros", "sparsity"), rows, left=(0, 1, 2))
        left_alone = (f"not pruned: {names} ({reason})" for names, reason in by_reason(self.unprunable, "unprunable"))
        return "\n".join([f"Weights of {self.model.name!r}", table, *left_alone])

    def apply(self, *, reconstruct: DataLike | None = None) -> Model:
        """Build the model with the zeros.

        Args:
            reconstruct: samples to make up for the zeros on, without labels or training:
                `plan.reconstruct(data).model`.

        Returns:
            A plain model of the same Keras with the same layers and names; a subclassed one becomes Functional.

        Raises:
            ValueError: a subclassed model's call cannot be followed, or the data do not fit.
        """
        return self._pruned_copy()[0] if reconstruct is None else self.reconstruct(reconstruct).model

    def reconstruct(
        self, data: DataLike, *, batch_size: int = 32, steps: int | None = None, seed: int = 0
    ) -> Reconstruction:
        """Build the model with as many zeros, so placed that the kept weights can make up for them on data.

        In the order of the graph, each weight of the plan gets as many zeros as its mask has, at N:M in every group,
        where its layer's output suffers least; the kept weights are solved by least squares, so that what the
        layer computes from the inputs that it has in the pruned model comes as near to the original's as it can
        (SparseGPT, Frantar and Alistarh, 2023). The data choose how far the weights may move. Layers without new zeros
        that read what has changed are solved too; a batch normalization is set to the statistics of the data where that
        lowers the error. Blocks of zeros are where the plan has them. Nothing is trained.

        Args:
            data: some hundred samples as the model meets them, in any form that `model.fit` accepts. Labels are not
                looked at.
            batch_size: samples at once where `data` are arrays.
            steps: batches of `data` at most.
            seed: of the choice of the places that layers are solved on.

        Returns:
            The pruned model, with the errors of its layers and outputs before, that is with the plan's own zeros, and
            after; and the layers that could not be solved (embeddings, states that are reset or convolved, more than
            8,192 inputs), which keep the plan's zeros. The error of the outputs is never larger than before.

        Raises:
            TypeError: `batch_size`, `steps` or `seed` is no number.
            ValueError: as `apply`; or the data have no batches or do not fit the model, or a layer's output for them
                is not finite.

        Example:
            >>> found = ep.plan_weights(model, sparsity=0.5).reconstruct(x)
            >>> found.after < found.before, float((found.model.get_layer("conv").kernel.numpy() == 0).mean())
            (True, 0.5)
        """
        check_data(data, batch_size, steps)
        check_seed(seed)
        graph = trace(self.model)
        removal = WeightRemoval(graph, *self._pruned_copy(), self.weights)
        return reconstruct(removal, data, batch_size=batch_size, steps=steps, seed=seed)

    def _pruned_copy(self) -> tuple[Model, dict[int, Layer]]:
        """A copy of the model with the zeros, and its layers by `id` of those of the model."""
        with status(f"Pruning {self.model.name}"), garbage_collection_off():
            walked = self.model if flavor.is_graph_model(self.model) else flavor.functional_stand_in(self.model)
            rebuilder = flavor.Rebuilder()
            copy = rebuilder.build(walked)
            flavor.copy_compile_state(self.model, copy)
            counterparts = rebuilder.counterparts()
            for one in self.weights:
                values = flavor.array_of(one.variable)
                one.variable_in(counterparts).assign(np.where(one.mask, values, np.zeros((), values.dtype)))
        return copy, counterparts


def _figures(size: int, zeros: int) -> tuple[str, str, str]:
    return f"{size:,}", f"{zeros:,}", f"{zeros / max(size, 1):.1%}"
