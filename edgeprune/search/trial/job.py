"""What trials are made from and what making one returns: plain data, which another process may work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeprune.data.batches import sample_count
from edgeprune.measure.metrics import MetricLike
from edgeprune.search.budget import Budget
from edgeprune.search.trial.record import Candidate, Stage, State
from edgeprune.search.verdict.judge import taken
from edgeprune.targets import Target
from edgeprune.types import Model


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs, labels and weights of some samples; None for what they lack."""

    x: Any
    y: Any = None
    sample_weight: Any = None

    @property
    def count(self) -> int:
        """How many there are."""
        return sample_count(self.x)

    def rows(self, count: int, seed: int) -> np.ndarray:
        """The numbers of some of them, chosen at random; of all where there are no more."""
        if count >= self.count:
            return np.arange(self.count)
        return np.sort(np.random.default_rng(seed).choice(self.count, count, replace=False))

    def inputs(self, count: int, seed: int) -> Any:
        """The inputs of some of them, chosen at random."""
        return taken(self.x, self.rows(count, seed))


@dataclass(frozen=True)
class TrialSettings:
    """How trials are made, the same for all of a search.

    Attributes:
        target: the device.
        epochs: passes over the training samples after the cut, after the original as the teacher, which training for
            the rounding takes half of; 0 without training.
        batch_size: samples per step.
        learning_rate: where the training begins, to fall to 0 on a cosine; None for the model's own.
        seed: of all that is drawn.
        quick_samples: how many samples a quick trial is scored on at most.
        solve_samples: how many samples layers are solved on, and files are calibrated with, at most.
    """

    target: Target
    epochs: int
    batch_size: int
    learning_rate: float | None
    seed: int
    quick_samples: int = 1024
    solve_samples: int = 512


@dataclass(frozen=True, eq=False)
class Work:
    """All that making a trial depends on beside the candidate.

    Attributes:
        model: the original.
        train: samples to train on, without labels too; None for no training.
        judged: samples that trials are scored on.
        metric: the figure, as `judge_of` accepts it.
        budget: the limits, of which the figures are measured.
        settings: how trials are made.
    """

    model: Model
    train: Samples | None
    judged: Samples
    metric: MetricLike | None
    budget: Budget
    settings: TrialSettings

    @property
    def is_training(self) -> bool:
        """Whether measured trials are trained."""
        return self.train is not None and self.settings.epochs > 0

    @property
    def unlabelled(self) -> Any:
        """Inputs to solve layers on and to calibrate with."""
        return (self.train or self.judged).inputs(self.settings.solve_samples, self.settings.seed)


@dataclass(frozen=True)
class Job:
    """A trial to make.

    Attributes:
        stage: without training, or on the file.
        candidate: the model.
        num_samples: how many samples a quick trial is scored on; None for `quick_samples`.
        weights: those of the same model after some parts of its training, to go on from; None to begin.
        parts_done: how many parts those are.
    """

    stage: Stage
    candidate: Candidate
    num_samples: int | None = None
    weights: Sequence[np.ndarray] | None = None
    parts_done: int = 0


@dataclass(frozen=True, eq=False)
class Made:
    """What making a trial returned.

    Attributes:
        state: whether it worked.
        figures: what was measured, by the names of `Trial`'s attributes.
        error: why it did not work.
        seconds: how long it took.
        content: the bytes of the file of a measured trial.
        weights: those of its Keras model, in the order of `flavor.weights_of(model)`.
    """

    state: State
    figures: Mapping[str, float | None] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0
    content: bytes | None = None
    weights: Sequence[np.ndarray] | None = None


def failed(error: Exception) -> Made:
    """What a trial that raised returns.

    Layers, Keras and the converter raise errors of any type.

    Raises:
        OSError: it is one, as of a full disk: that is no matter of the model.
    """
    import tensorflow as tf

    if isinstance(error, OSError):
        raise error
    is_memory = isinstance(error, MemoryError | tf.errors.ResourceExhaustedError)
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Made("oom" if is_memory else "failed", error=text)
