"""What the removal of residual blocks does to a model's outputs, or to its loss, on data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.plan.data_importance import Losses
from edgeprune.data.batches import Batch
from edgeprune.data.labels import check_labels, check_sample_weights
from edgeprune.data.tensors import as_tensors, input_tensors
from edgeprune.depth.residual_blocks import Block
from edgeprune.types import Loss, Model, TfTensor


class Scorer:
    """Scores sets of blocks: the model is compiled once, with a factor for what each branch adds."""

    def __init__(self, model: Model, blocks: Sequence[Block], batches: list[Batch], loss: Loss | None) -> None:
        import tensorflow as tf

        if not batches:
            raise ValueError("The data has no batches.")
        self._model = model
        self._numbers = {block.name: number for number, block in enumerate(blocks)}
        self._batches = batches
        labelled = all(batch.y is not None for batch in batches)
        has_loss = loss is not None or bool(getattr(model, "loss", None))
        self._losses = Losses(model, loss) if labelled and has_loss else None
        for _, y, sample_weight in batches if self._losses else ():
            check_labels(model, y, loss)
            check_sample_weights(sample_weight)
        gated = Gated(model, blocks)
        self._run = tf.function(gated, autograph=False, reduce_retracing=True)
        self._expected = [self._outputs(batch, []) for batch in batches]
        self._loss = self._mean_loss(self._expected) if self._losses else 0.0
        finite = all(np.isfinite(output).all() for batch in self._expected for output in batch)
        if not (finite and math.isfinite(self._loss)):
            raise ValueError(
                f"Model {model.name!r} returns NaN or infinity on this data, so its blocks cannot be scored: "
                "check the data and the weights."
            )

    @property
    def measure(self) -> str:
        """What a score is."""
        return "increase of the loss" if self._losses else "change of the output"

    def score(self, removed: Sequence[Block]) -> float:
        """What the removal of these blocks does."""
        given = [self._outputs(batch, removed) for batch in self._batches]
        if self._losses:
            return self._mean_loss(given) - self._loss
        pairs = [list(zip(*batch, strict=True)) for batch in zip(self._expected, given, strict=True)]
        by_output = zip(*pairs, strict=True)
        return float(np.mean([_relative_change(output) for output in by_output]))

    def _outputs(self, batch: Batch, removed: Sequence[Block]) -> list[np.ndarray]:
        gates = np.ones(len(self._numbers), np.float32)
        gates[[self._numbers[block.name] for block in removed]] = 0
        return [np.asarray(output) for output in self._run(input_tensors(self._model, batch.x), gates)]

    def _mean_loss(self, outputs: Sequence[Sequence[np.ndarray]]) -> float:
        losses, counts = [], []
        for batch, given in zip(self._batches, outputs, strict=True):
            _, y, weight = batch
            packed = flavor.pack_outputs(self._model, given)
            assert self._losses is not None, "score asks only with labels"
            losses.append(float(self._losses(as_tensors(y), packed, as_tensors(weight))))
            counts.append(len(given[0]))
        return float(np.average(losses, weights=counts))


def _relative_change(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    change = sum(float(np.sum(np.square(new - old, dtype=np.float64))) for old, new in pairs)
    norm = sum(float(np.sum(np.square(old, dtype=np.float64))) for old, _ in pairs)
    return math.sqrt(change / norm) if norm else math.sqrt(change)


class Gated:
    """Runs a model with what each block's branch adds multiplied by a factor."""

    def __init__(self, model: Model, blocks: Sequence[Block]) -> None:
        self._model = model
        self._blocks = {id(block.node.node): (number, block.shortcut) for number, block in enumerate(blocks)}

    def __call__(self, inputs: Sequence[Any], gates: np.ndarray | TfTensor) -> list[Any]:
        """The model's outputs, flat."""

        def call(node: flavor.GraphNode, taken: list[Any]) -> list[Any]:
            is_gated = id(node.node) in self._blocks
            return [self._gated_sum(node, taken, gates)] if is_gated else flavor.call_layer(node, taken)

        return flavor.run_model(self._model, inputs, call)

    def _gated_sum(self, node: flavor.GraphNode, taken: list[Any], gates: np.ndarray | TfTensor) -> Any:
        import tensorflow as tf

        number, shortcut = self._blocks[id(node.node)]
        total = taken[shortcut]
        for position, tensor in enumerate(taken):
            if position != shortcut:
                total = total + tensor * tf.cast(gates[number], tensor.dtype)
        return total
