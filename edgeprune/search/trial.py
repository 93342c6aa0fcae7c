"""Makes the models that a search asks for, and measures them: the one module that knows all that may be done to one."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgeprune import flavor
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.channels.plan.planning import plan_channels
from edgeprune.export.convert import export_tflite
from edgeprune.fit.distilling import distill
from edgeprune.measure.macs import count_macs
from edgeprune.measure.parameters import count_parameters
from edgeprune.measure.predictions import predict
from edgeprune.search.budget import Budget
from edgeprune.search.file_costs import file_costs, file_outputs
from edgeprune.search.judge import Judge
from edgeprune.search.trial_journal import TrialJournal
from edgeprune.search.trial_record import Candidate, Stage, State, Trial
from edgeprune.targets import Target
from edgeprune.types import Model, Quantization


@dataclass(frozen=True)
class Samples:
    """Inputs, labels and weights of some samples; None for what they lack."""

    x: Any
    y: Any = None
    sample_weight: Any = None


@dataclass(frozen=True)
class TrialSettings:
    """How trials are made, the same for all of a search.

    Attributes:
        target: the device.
        quantization: of the files.
        epochs: passes over the training samples after the cut, after the original as the teacher; 0 without training.
        batch_size: samples per step.
        learning_rate: a number, or None for the model's own.
        seed: of the places that layers are solved on.
    """

    target: Target
    quantization: Quantization | None
    epochs: int
    batch_size: int
    learning_rate: float | None
    seed: int


class TrialRunner:
    """Makes and measures the models of a search; the one place that knows all that may be done to a model.

    Args:
        model: the original.
        train: samples to train on and to solve layers on, without labels too; None without any.
        judged: samples that trials are scored on.
        judge: what scores their outputs.
        settings: how trials are made.
        budget: the limits, of which the figures are measured.
        journal: what is already known, and where trials are kept.
        folder: where the files of measured trials lie.
    """

    def __init__(
        self,
        model: Model,
        train: Samples | None,
        judged: Samples,
        judge: Judge,
        settings: TrialSettings,
        budget: Budget,
        journal: TrialJournal,
        folder: Path,
    ) -> None:
        self.model, self.judge, self.settings, self.budget = model, judge, settings, budget
        self._train, self._judged, self._journal, self._folder = train, judged, journal, folder
        self._cut: dict[float, Model] = {}
        self._measured: dict[float, Model] = {}

    @property
    def is_training(self) -> bool:
        """Whether measured trials are trained."""
        return self._train is not None and self.settings.epochs > 0

    @property
    def unlabelled(self) -> Any:
        """Inputs to solve layers on and to calibrate with."""
        return (self._train or self._judged).x

    def quick(self, target_macs: float) -> Trial:
        """Cut the model, make up for it without training, and score it; costs are measured where they are limited."""

        def figures() -> dict[str, float]:
            smaller = self._smaller(target_macs)
            outputs = predict(smaller, self._judged.x, batch_size=self.settings.batch_size)
            found = self._scored("quick_score", outputs) | _counts(smaller)
            if self.costs:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "model.tflite"
                    self._export(smaller, path)
                    found |= file_costs(path, self.settings.target, self.costs)
            return found

        return self._made("quick", target_macs, figures)

    def measured(self, target_macs: float) -> Trial:
        """Cut the model, train it where there are samples for it, write the file, and measure the file."""

        def figures() -> dict[str, float]:
            smaller = self._measured[target_macs] = self._trained(target_macs)
            path = self.path_of(target_macs)
            self._export(smaller, path)
            found = self._scored("score", file_outputs(path, self.model, self._judged.x))
            return found | file_costs(path, self.settings.target, list(self.budget.limits)) | _counts(smaller)

        return self._made("measured", target_macs, figures)

    def model_of(self, target_macs: float) -> Model:
        """The model of a measured trial; after a search that was resumed it is made again."""
        return self._measured.get(target_macs) or self._trained(target_macs)

    def _trained(self, target_macs: float) -> Model:
        smaller = self._smaller(target_macs)
        if not self.is_training or self._train is None or smaller is self.model:
            return smaller
        flavor.keras_of(smaller).utils.set_random_seed(self.settings.seed)
        self._cut.pop(target_macs, None)  # what is trained is no longer what was cut
        return distill(
            smaller,
            self.model,
            self._train.x,
            self._train.y,
            sample_weight=self._train.sample_weight,
            epochs=self.settings.epochs,
            batch_size=self.settings.batch_size,
            learning_rate=self.settings.learning_rate,
            description=f"Training at {target_macs:.0%} of the MACs",
        )

    def path_of(self, target_macs: float) -> Path:
        """The file of a measured trial."""
        return self._folder / f"macs_{target_macs:.4f}.tflite"

    @property
    def costs(self) -> list[str]:
        """The limits on what a file costs."""
        return [name for name in self.budget.limits if name != "max_accuracy_drop"]

    def _smaller(self, target_macs: float) -> Model:
        if target_macs >= 1:
            return self.model
        if target_macs not in self._cut:
            plan = self._plan(target_macs)
            found = plan.reconstruct(self.unlabelled, batch_size=self.settings.batch_size, seed=self.settings.seed)
            self._cut = {target_macs: found.model}  # the last one alone: models take memory
        return self._cut[target_macs]

    def _plan(self, target_macs: float) -> ChannelPlan:
        return plan_channels(self.model, target_macs=target_macs, round_to=self.settings.target.round_to)

    def _candidate(self, target_macs: float) -> Candidate:
        planned = () if target_macs >= 1 else self._plan(target_macs).planned
        widths = {group.name: group.after for group in planned if group.after < group.before}
        return Candidate(widths, quantization=self.settings.quantization)

    def _export(self, model: Model, path: Path) -> None:
        export_tflite(
            model, path, self.settings.quantization, self.unlabelled, overwrite=True, verify=False, verbose=False
        )

    def _scored(self, stage_score: str, outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
        score = self.judge.score(outputs)
        sign = 1.0 if self.judge.higher_is_better else -1.0
        return {stage_score: score, "accuracy_drop": sign * (self.judge.baseline - score)}

    def _made(self, stage: Stage, target_macs: float, figures: Callable[[], dict[str, float]]) -> Trial:
        """The trial, from the journal where it is there; what fails is a trial that failed."""
        wanted = {"target_macs": target_macs}
        for known in self._journal.trials:
            is_there = stage == "quick" or known.error is not None or self.path_of(target_macs).exists()
            if known.stage == stage and dict(known.settings) == wanted and is_there:
                return known
        found: dict[str, Any] = {}
        candidate, state, error = None, "ok", None
        begin = time.perf_counter()
        try:
            candidate = self._candidate(target_macs)
            found = figures()
            if not math.isfinite(found["accuracy_drop"]):
                state, error = "nan", f"the score is {self.judge.baseline - found['accuracy_drop']}"
        except (ValueError, RuntimeError, ArithmeticError, MemoryError, _tensorflow_error()) as raised:
            state = "oom" if _is_out_of_memory(raised) else "failed"
            error = f"{type(raised).__name__}: {' '.join(str(raised).split())[:300]}"
        if stage == "measured":
            found["quick_score"] = self._quick_score(wanted)
        seconds = time.perf_counter() - begin
        number = len(self._journal.trials)
        trial = Trial(number, stage, wanted, candidate, cast(State, state), error=error, seconds=seconds, **found)
        self._journal.add(trial)
        return trial

    def _quick_score(self, settings: Mapping[str, Any]) -> float | None:
        same = (one for one in self._journal.trials if one.stage == "quick" and dict(one.settings) == dict(settings))
        return next((one.quick_score for one in same), None)


def _counts(model: Model) -> dict[str, float]:
    return {"macs": count_macs(model).total, "params": count_parameters(model).total}


def _is_out_of_memory(error: BaseException) -> bool:
    import tensorflow as tf

    return isinstance(error, MemoryError | tf.errors.ResourceExhaustedError)


def _tensorflow_error() -> type[Exception]:
    """What TensorFlow raises where it stops, out of memory included."""
    import tensorflow as tf

    return tf.errors.OpError
