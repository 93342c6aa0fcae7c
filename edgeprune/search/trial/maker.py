"""Makes and measures the models of a search: the one module that knows all that may be done to a model."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.rebuild.slicing import whole_copy
from edgeprune.data.batches import samples_of
from edgeprune.data.named_arrays import named_arrays
from edgeprune.data.ports import input_shapes
from edgeprune.depth.bypass import walkable
from edgeprune.export.convert import export_tflite
from edgeprune.fit.distilling import distill
from edgeprune.fit.training import count_steps
from edgeprune.measure.predictions import predict
from edgeprune.one_shot.planning import prune_weights
from edgeprune.quantization.planning import with_wider_layers
from edgeprune.quantization.training import quantize_aware
from edgeprune.schemes import scheme_of
from edgeprune.search.strategies.directions import rounding_epochs
from edgeprune.search.trial.file_costs import file_costs, file_outputs, untrained_costs
from edgeprune.search.trial.job import Job, Made, Samples, Work, failed
from edgeprune.search.trial.record import Candidate
from edgeprune.search.trial.variant import Variant
from edgeprune.search.verdict.judge import Judge, Outputs, judge_of, standard_error, taken
from edgeprune.sparsity.callbacks import UpdatePruningStep
from edgeprune.sparsity.prune import prune_low_magnitude
from edgeprune.sparsity.schedules import ConstantSparsity
from edgeprune.strip import is_quantize_aware, strip_pruning
from edgeprune.types import Calibration, Callback, Model

if TYPE_CHECKING:
    import tensorflow as tf

_VARIANTS = 2  # that are kept, as models take memory
# Of the learning rate, in training for the rounding of a file.
_ROUNDING_RATE = 0.1
_MOST_OUTPUTS = 256 * 2**20  # bytes of the original's outputs for the training samples
_BITS_SAMPLES = 64  # that the bits of layers are chosen on
_TRAINING = "Training after the original"


class Maker:
    """Makes trials.

    Args:
        work: what they are made from, whose model is made under no strategy.
        strategy: what models are trained under; None for none.
    """

    def __init__(self, work: Work, strategy: tf.distribute.Strategy | None = None) -> None:
        self.work, self._strategy = work, strategy
        self._variants: dict[tuple[str, ...], Variant] = {}

    def made(self, job: Job) -> Made:
        """A trial; what fails is a trial that failed."""
        begin, found = time.perf_counter(), Made("ok")
        try:
            found = self._measured(job) if job.stage == "measured" else self._quick(job)
            if not math.isfinite(found.figures["accuracy_drop"] or 0.0):
                found = replace(found, state="nan", error=f"{self.judge.name} is not finite")
        except Exception as error:
            found = failed(error)
        return replace(found, seconds=time.perf_counter() - begin)

    @cached_property
    def original_outputs(self) -> dict[str, np.ndarray]:
        """What the original computes for the samples that trials are judged on."""
        return predict(self.work.model, self.work.judged.x, batch_size=self.work.settings.batch_size)

    @cached_property
    def judge(self) -> Judge:
        """What scores outputs for all samples that trials are judged on."""
        return judge_for(self.work, self.work.judged, self.original_outputs)

    def variant(self, removed_blocks: tuple[str, ...] = ()) -> Variant:
        """The model without some of its blocks."""
        if removed_blocks not in self._variants:
            while len(self._variants) >= _VARIANTS:
                self._variants.pop(next(iter(self._variants)))
            work, settings = self.work, self.work.settings
            judged_on = taken(work.judged.x, self.quick_rows)
            self._variants[removed_blocks] = Variant(
                work.model, removed_blocks, self._unlabelled, judged_on, settings.batch_size, settings.seed
            )
        return self._variants[removed_blocks]

    @cached_property
    def quick_rows(self) -> np.ndarray:
        """The numbers of the samples that quick trials are scored on."""
        return self.work.judged.rows(self.work.settings.quick_samples, self.work.settings.seed)

    def untrained(self, candidate: Candidate) -> Model:
        """A candidate as a model, of which the shapes are right and the weights are not."""
        smaller = self.variant(candidate.removed_blocks).plain_model(candidate)
        if not candidate.quantize_aware:
            return smaller
        # Zeros are kept by masks, which are weights of a model that is trained for its rounding.
        smaller = prune_weights(smaller, candidate.sparsity) if candidate.sparsity else smaller
        return quantize_aware(smaller, _scheme(candidate))

    def finished(self, candidate: Candidate, weights: Sequence[np.ndarray] | None = None, parts_done: int = 0) -> Model:
        """A candidate as the model whose file is measured: cut, made up for, pruned and trained.

        Args:
            candidate: what it is.
            weights: those of its float model after some parts of its training, to go on from; None to begin.
            parts_done: how many parts those are.
        """
        smaller = self._trained(candidate, self._float_model(candidate, weights), parts_done)
        if not candidate.quantize_aware:
            return smaller

        def rounded(model: Model) -> Model:
            return quantize_aware(model, _scheme(candidate), calibration=self._unlabelled)

        if not self.work.is_training:
            return rounded(smaller)
        epochs = rounding_epochs(self.work.settings.epochs)
        return self._fitted(smaller, epochs, "Training for the rounding", prepare=rounded, rate_share=_ROUNDING_RATE)

    def with_wider_layers(self, candidate: Candidate, weights: Sequence[np.ndarray], more_bytes: int) -> Candidate:
        """A candidate of 4 bits in which the layers that gain most by it keep 8.

        Args:
            candidate: what it is.
            weights: those of its float model.
            more_bytes: how much larger its file may be.
        """
        model = walkable(self._float_model(candidate, weights))
        samples = samples_of(self._unlabelled, _BITS_SAMPLES)
        scheme = with_wider_layers(model, named_arrays("the model", input_shapes(model), samples), more_bytes)
        chosen = replace(_scheme(candidate), weight_bits=scheme.weight_bits, layers=scheme.layers)
        return replace(candidate, quantization=chosen.name if chosen == scheme_of(chosen.name) else chosen)

    def write(self, model: Model, candidate: Candidate, path: Path) -> None:
        """Write a candidate's file.

        Args:
            model: what `finished` returned.
            candidate: what it is.
            path: the file; one that exists is replaced.
        """
        export_tflite(
            model,
            path,
            candidate.quantization,
            self._unlabelled,
            calibration=calibration_of(candidate),
            target=self.work.settings.target,
            overwrite=True,
            verify=False,
            verbose=False,
        )

    def _quick(self, job: Job) -> Made:
        candidate, variant = job.candidate, self.variant(job.candidate.removed_blocks)
        outputs, original = variant.outputs(candidate), taken(self.original_outputs, self.quick_rows)
        judge = self._quick_judge
        if job.num_samples is not None:
            rows = np.arange(min(job.num_samples, len(self.quick_rows)))
            judge, outputs, original = judge.of_rows(rows), taken(outputs, rows), taken(original, rows)
        figures: dict[str, float | None] = {
            **_scored(judge, "quick_score", outputs),
            "drop_error": standard_error(judge, original, outputs),
            "macs": variant.macs(candidate.widths),
            "params": variant.params(candidate.widths),
        }
        if self.work.budget.costs and job.num_samples is None:
            device, costs = self.work.settings.target, self.work.budget.costs
            model = variant.quick_model(candidate)
            figures |= untrained_costs(model, candidate.quantization, self._unlabelled, device, costs)
        return Made("ok", figures)

    def _measured(self, job: Job) -> Made:
        candidate, model = job.candidate, self.finished(job.candidate, job.weights, job.parts_done)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            self.write(model, candidate, path)
            outputs = file_outputs(path, self.work.model, self.work.judged.x)
            figures: dict[str, float | None] = {**_scored(self.judge, "score", outputs)}
            figures["drop_error"] = standard_error(self.judge, self.original_outputs, outputs)
            figures |= file_costs(path, self.work.settings.target, list(self.work.budget.limits))
            content = path.read_bytes()
        if not candidate.quantize_aware and candidate.quantization is not None:
            figures["float_score"] = self._float_score(candidate, model)
        variant = self.variant(candidate.removed_blocks)
        figures |= {"macs": variant.macs(candidate.widths), "params": variant.params(candidate.widths)}
        return Made("ok", figures, content=content, weights=flavor.weight_values(model))

    def _float_score(self, candidate: Candidate, model: Model) -> float:
        if candidate.is_whole:
            return self.judge.baseline
        return self.judge.score(predict(model, self.work.judged.x, batch_size=self.work.settings.batch_size))

    def _float_model(self, candidate: Candidate, weights: Sequence[np.ndarray] | None) -> Model:
        """The model before it is trained and quantized, or with the weights that it has so far."""
        if candidate.is_whole:
            return self.work.model
        variant = self.variant(candidate.removed_blocks)
        if weights is not None:
            model = variant.plain_model(candidate)
            flavor.set_weight_values(model, weights)
            return model
        smaller = variant.solved_model(candidate)
        return (
            prune_weights(smaller, candidate.sparsity, reconstruct=self._unlabelled) if candidate.sparsity else smaller
        )

    def _trained(self, candidate: Candidate, smaller: Model, parts_done: int) -> Model:
        """The model after the rest of its training, in which zeros stay zeros."""

        def held(model: Model) -> Model:
            masked = prune_low_magnitude(model, ConstantSparsity(candidate.sparsity, 0, frequency=1))
            return _compiled_as(model, masked)

        pruned: dict[str, Any] = {"prepare": held, "callbacks": [UpdatePruningStep()]} if candidate.sparsity else {}
        for number, epochs in enumerate(candidate.epochs[parts_done:], parts_done):
            smaller = self._fitted(smaller, epochs, _TRAINING, number, **pruned)
        return smaller

    def _fitted(
        self,
        smaller: Model,
        epochs: int,
        what: str,
        part: int = 0,
        prepare: Callable[[Model], Model] = lambda model: model,
        rate_share: float = 1.0,
        callbacks: Sequence[Callback] = (),
    ) -> Model:
        """What `prepare` makes of a model, trained and without its masks: under the strategy, copied to it and back."""
        if self._strategy is None:
            trained = self._distilled(prepare(smaller), epochs, what, part, rate_share, callbacks)
            return _compiled_as(trained, strip_pruning(trained))
        with self._strategy.scope():
            mirrored = prepare(whole_copy(smaller))
        trained = strip_pruning(self._distilled(mirrored, epochs, what, part, rate_share, callbacks))
        plain = prepare(smaller) if is_quantize_aware(trained) else whole_copy(smaller)
        flavor.set_weight_values(plain, flavor.weight_values(trained))
        return plain

    def _distilled(
        self, student: Model, epochs: int, what: str, part: int, rate_share: float, callbacks: Sequence[Callback]
    ) -> Model:
        train, settings = self.work.train, self.work.settings
        assert train is not None, "there is nothing to train on"
        keras = flavor.keras_of(student)
        keras.utils.set_random_seed((settings.seed + part) % 2**32)  # each part has another order
        rate: Any = settings.learning_rate
        if rate is not None:
            steps = epochs * count_steps(train.x, settings.batch_size)
            rate = keras.optimizers.schedules.CosineDecay(rate * rate_share, steps)
        return distill(
            student,
            self._teacher,
            train.x,
            train.y,
            sample_weight=train.sample_weight,
            teacher_outputs=self._teacher_outputs,
            epochs=epochs,
            batch_size=settings.batch_size,
            learning_rate=rate,
            callbacks=callbacks,
            description=what,
        )

    @cached_property
    def _teacher(self) -> Model:
        if self._strategy is None:
            return self.work.model
        with self._strategy.scope():
            return whole_copy(self.work.model)

    @cached_property
    def _teacher_outputs(self) -> dict[str, np.ndarray] | None:
        """What the original returns for the training samples, run once for all models; None for large outputs."""
        work = self.work
        assert work.train is not None, "there is nothing to train on"
        of_one = sum(values[:1].nbytes for values in self.original_outputs.values())
        if of_one * work.train.count > _MOST_OUTPUTS:
            return None
        return predict(work.model, work.train.x, batch_size=work.settings.batch_size)

    @cached_property
    def _unlabelled(self) -> Any:
        return self.work.unlabelled

    @cached_property
    def _quick_judge(self) -> Judge:
        return self.judge.of_rows(self.quick_rows)


def calibration_of(candidate: Candidate) -> Calibration:
    """How a candidate's file is calibrated, wherever it is written."""
    # Layers of 4 bits that keep 8 would not be in the costs that were looked at first.
    return "min-max" if _scheme(candidate).has_four_bits else "auto"


def judge_for(work: Work, samples: Samples, outputs: Outputs) -> Judge:
    """What scores outputs for these samples, for which the original computes `outputs`."""
    return judge_of(
        work.model, outputs, samples.x, samples.y, samples.sample_weight, work.metric, work.settings.batch_size
    )


def _scored(judge: Judge, name: str, outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    score = judge.score(outputs)
    sign = 1.0 if judge.higher_is_better else -1.0
    return {name: score, "accuracy_drop": sign * (judge.baseline - score)}


def _scheme(candidate: Candidate) -> Any:
    return scheme_of(candidate.quantization)


def _compiled_as(old: Model, new: Model) -> Model:
    """A model that may be a clone of another, which those of tf_keras leave without a loss."""
    if new is not old:
        flavor.copy_compile_state(old, new)
    return new
