"""Which of the two mechanisms holds a model's masks, and what both can do.

Keras 3: `constraint_masks`, where the optimizer applies them. `tf_keras`: `wrapper_masks`, TF-MOT's own wrappers,
imported only when a model asks for them.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from edgeprune import flavor
from edgeprune.sparsity.schedules import PruningSchedule
from edgeprune.sparsity.settings import PruningRun
from edgeprune.sparsity.updates import MaskedWeight, StepCounter
from edgeprune.types import Layer, Model


class Mechanism(Protocol):
    """What a module that holds masks offers; `model` may also be a single layer."""

    def candidates(self, model: Layer) -> list[Layer]:
        """The layers that may be put under pruning, each on its own; ValueError where the model cannot be."""

    def parts_of(self, layer: Layer) -> list[Layer]:
        """The layers that go under pruning with a candidate."""

    def why_not(self, layer: Layer, run: PruningRun) -> str | None:
        """What keeps this mechanism from a layer that has prunable weights; None where nothing does."""

    def why_not_alone(self, layer: Layer, run: PruningRun) -> str | None:
        """What keeps a layer that was passed by itself from pruning; None where nothing does, as far as is known."""

    def may_add_sublayers(self, layer: Layer) -> bool:
        """Whether a layer may make parts that can be pruned when it is built."""

    def holds(self, layer: Layer) -> bool:
        """Whether this very layer is under pruning, whatever is inside it."""

    def prune_model(self, model: Model, runs: dict[int, PruningRun]) -> Model:
        """Put the layers with a run, by the layer's id, under pruning; returns the model to train."""

    def prune_layer(self, layer: Layer, run: PruningRun, **arguments: object) -> Layer:
        """Put one layer under pruning, with arguments of the mechanism's own; returns the layer to use."""

    def has_masks(self, model: Layer) -> bool:
        """Whether anything in the model is under pruning."""

    def strip(self, model: Layer) -> Any:
        """End pruning; returns a plain model with the zeros in its weights."""

    def apply_masks(self, model: Layer) -> None:
        """Put zeros where the masks say so."""

    def begin_training(self, model: Model, in_fit: bool) -> StepCounter:
        """Make the model's training step, in `fit` or a custom training loop, use the masks; returns its counter."""

    def end_training(self, model: Model) -> None:
        """Undo what `begin_training` did to the model."""

    def runs(self, model: Layer) -> list[PruningRun]:
        """What was asked of pruning, each run once, where it is known."""

    def scheduled(self, model: Model) -> list[tuple[PruningSchedule, int]]:
        """The schedules at work in a model, each with the step it has come to."""

    def masked_weights(self, model: Layer) -> Sequence[MaskedWeight]:
        """Every weight that is under pruning."""

    def current_step(self, model: Layer) -> int:
        """The training step the model's pruning has come to; -1 before training has begun."""


def mechanism_of(model: Layer) -> Mechanism:
    """The mechanism for a model or a layer of either Keras."""
    name = "constraint_masks" if flavor.is_keras_3(model) else "wrapper_masks"
    return importlib.import_module(f"edgeprune.sparsity.{name}")
