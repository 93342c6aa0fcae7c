"""The end of a search: the last check of the best file, its recipe and its bundle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.atomic import NotOverwrittenError, atomic_path
from edgeprune.bundle.bundle import export_bundle
from edgeprune.measure.predictions import predict
from edgeprune.schemes import Scheme, scheme_of
from edgeprune.search.budget import Budget
from edgeprune.search.compress_result import CompressResult, rank_correlation
from edgeprune.search.journal.measurements import data_fingerprint
from edgeprune.search.journal.search_record import TRIALS, SearchEnding
from edgeprune.search.journal.trial_journal import TrialJournal
from edgeprune.search.recipe import DataOfRecipe, Recipe
from edgeprune.search.strategies.finalists import Outcome, broken_costs, drop_of
from edgeprune.search.trial.file_costs import file_costs, file_outputs
from edgeprune.search.trial.files import TrialFiles
from edgeprune.search.trial.job import Samples, Work
from edgeprune.search.trial.maker import Maker, calibration_of, judge_for
from edgeprune.search.trial.record import Candidate, Trial
from edgeprune.search.verdict.evidence import EVIDENCE, save_evidence
from edgeprune.search.verdict.gate import Verdict, verdict_on
from edgeprune.search.verdict.judge import Judge
from edgeprune.types import Model

MODEL, RECIPE, BUNDLE = "model.tflite", "recipe.json", "bundle"
_FEW = 30  # samples, of which each is more than three points of accuracy


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a search begins with.

    Attributes:
        work: what trials are made from.
        held: the samples that only the last check sees.
        has_own_test: whether they are the user's own, and not half of the validation data.
    """

    work: Work
    held: Samples
    has_own_test: bool

    @cached_property
    def held_outputs(self) -> dict[str, np.ndarray]:
        """What the original computes for the samples that were held out."""
        return predict(self.work.model, self.held.x, batch_size=self.work.settings.batch_size)

    @cached_property
    def held_judge(self) -> Judge:
        """What scores outputs for the samples that were held out."""
        return judge_for(self.work, self.held, self.held_outputs)


def check_is_free(folder: Path) -> None:
    """Refuse a folder with files in it that a search would replace and that no search wrote.

    Raises:
        FileExistsError: there is one.
    """
    written = [folder / name for name in (MODEL, RECIPE, BUNDLE, EVIDENCE)]
    if not (folder / TRIALS).exists() and (found := [path for path in written if path.exists()]):
        raise NotOverwrittenError(
            f"{found[0]} is there already, without the trials of its search: choose another folder."
        )


@dataclass(frozen=True, eq=False)
class Ending:
    """The last check, and all that is written when a search is done.

    Attributes:
        maker: makes models.
        prepared: what the search began with.
        journal: its trials.
        files: theirs.
        folder: where what is written lies.
        settings: those of the search, by the names of `compress`'s arguments.
        bundle: whether to write a bundle.
    """

    maker: Maker
    prepared: Prepared
    journal: TrialJournal
    files: TrialFiles
    folder: Path
    settings: Mapping[str, Any]
    bundle: bool

    def result(self, found: Outcome) -> CompressResult:
        """Hold the best file against the budget, and write what belongs to it."""
        trials, work = tuple(self.journal.trials), self.prepared.work
        correlation = rank_correlation(trials)
        known = None if math.isnan(correlation) else correlation
        best = found.best
        if best is None or best.candidate is None:
            errors = [trial.error for trial in trials if trial.error]
            notes: tuple[str, ...] = (f"every trial failed, the last with {errors[-1]}",)
            self.journal.end(SearchEnding(None, False, None, known, notes))
            return CompressResult(False, None, None, None, None, trials, correlation, None, None, notes, work.metric)
        path = self.folder / MODEL
        made = self.files.path(best.number)
        verdict = self._verdict(made)
        with atomic_path(path) as unfinished:
            unfinished.write_bytes(made.read_bytes())
        model = self._model(best, best.candidate)
        recipe = self._recipe(best.candidate, path)
        bundled, said = self._bundled(model, best.candidate)
        said += self._evidence(model)
        notes = (*_notes(work, found, best.candidate, verdict, trials), *self._unjudged(), *said)
        self.journal.end(SearchEnding(best.number, verdict.accepted, verdict.to_dict(), known, notes))
        return CompressResult(
            accepted=verdict.accepted,
            path=path,
            model=model,
            candidate=best.candidate,
            verdict=verdict,
            trials=trials,
            rank_correlation=correlation,
            recipe=recipe,
            bundle=bundled,
            notes=notes,
            metric=work.metric,
        )

    def _unjudged(self) -> list[str]:
        note = self.prepared.held_judge.note
        return [] if note is None else [note]

    def _verdict(self, path: Path) -> Verdict:
        prepared, work = self.prepared, self.prepared.work
        budget = work.budget.with_memories(work.settings.target)
        costs = file_costs(path, work.settings.target, list(budget.limits))
        after = file_outputs(path, work.model, prepared.held.x)
        return verdict_on(budget, costs, prepared.held_judge, prepared.held_outputs, after, seed=work.settings.seed)

    def _model(self, best: Trial, candidate: Candidate) -> Model:
        if candidate.is_whole and not candidate.quantize_aware:
            return self.prepared.work.model
        model = self.maker.untrained(candidate)
        flavor.set_weight_values(model, self.files.weights(best.number))
        return model

    def _recipe(self, candidate: Candidate, path: Path) -> Path:
        work = self.prepared.work
        samples = work.train or work.judged
        recipe = Recipe(
            settings={
                **{name: plain(value) for name, value in self.settings.items()},
                **{name: plain(limit) for name, limit in work.budget.limits.items()},
            },
            candidate=candidate,
            data=_made_from(self.prepared),
            model_fingerprint=self.journal.header.model_fingerprint,
            data_fingerprint=data_fingerprint([*vars(samples).values()]),
            size=path.stat().st_size,
        )
        recipe.save(self.folder / RECIPE)
        return self.folder / RECIPE

    def _evidence(self, model: Model) -> list[str]:
        """Keep what a report needs, with what the user should know about it."""
        work, held = self.prepared.work, self.prepared.held
        try:
            save_evidence(self.folder, work.model, model, held, work.settings.seed)
        except (TypeError, ValueError, NotImplementedError) as error:
            return [f"a report on this folder needs the models and the data, which could not be kept: {error}"]
        return []

    def _bundled(self, model: Model, candidate: Candidate) -> tuple[Path | None, list[str]]:
        """The bundle of the model, with what the user should know about it."""
        work, held = self.prepared.work, self.prepared.held
        device = work.settings.target
        if not self.bundle:
            return None, []
        name = scheme_of(candidate.quantization).name
        if name not in device.quantizations:
            return None, [f"no bundle was written: those for {device.name!r} are not in {name or 'float32'}"]
        labelled = (held.x, held.y, held.sample_weight) if held.sample_weight is not None else (held.x, held.y)
        scheme = scheme_of(candidate.quantization)
        try:
            written = export_bundle(
                model,
                self.folder / BUNDLE,
                device,
                work.unlabelled,
                validation_data=None if held.y is None else labelled,
                metric=None if work.metric == "agreement" or work.metric == "distance" else work.metric,
                quantization=candidate.quantization,
                per_channel_dense=scheme.per_channel_dense if scheme.is_calibrated else None,
                calibration=calibration_of(candidate),
                overwrite=True,
            )
        except (ValueError, ImportError) as error:
            return None, [f"no bundle was written: {' '.join(str(error).split())}"]
        return written.directory, []


def _made_from(prepared: Prepared) -> DataOfRecipe:
    if prepared.work.train is not None:
        return "train"
    return "validation" if prepared.has_own_test else "half of validation"


def plain(value: object) -> Any:
    """A setting as JSON has it: `Scheme`s as dicts, whole numbers without a point."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():  # bytes, which are whole
        return int(value)
    return vars(value) if isinstance(value, Scheme) else value


def _notes(
    work: Work, found: Outcome, candidate: Candidate, verdict: Verdict, trials: Sequence[Trial]
) -> Iterator[str]:
    budget = work.budget
    failures = [trial for trial in trials if trial.stage == "measured" and trial.state != "ok"]
    if failures:
        yield f"{len(failures)} of the models that were to be measured failed, the last with {failures[-1].error}"
    if candidate.is_whole and verdict.accepted:
        why = "nothing had to be cut" if budget.costs else "no narrower model that was tried holds the limit"
        yield f"{why}: the file is the original{'' if candidate.quantization is None else ', quantized'}"
    if found.holds and not verdict.accepted:
        yield from _next_steps(work, verdict)
    if not found.holds and verdict.accepted:
        yield "no model that was tried holds every limit on the samples of the search; the nearest does on the others"
    elif not found.holds:
        yield "no model that was tried holds every limit: this is the nearest"
        if reason := found.reason or _contradiction(budget, trials):
            yield reason
        else:
            yield "raise the limit, or look further in another folder: num_trials, num_finalists, epochs, time_budget"
    if verdict.num_samples < _FEW:
        yield f"the verdict is on {verdict.num_samples} samples alone, and says little of others: pass more, or test="
    limit = verdict.allowed_drop
    if verdict.accepted and limit is not None and verdict.lost.high > limit:
        yield f"the interval of the drop reaches beyond the limit of {limit:.4g}: more validation data would narrow it"


def _next_steps(work: Work, verdict: Verdict) -> Iterator[str]:
    """What to do where the limits held in the search and do not in the end."""
    broken = {one.limit for one in verdict.exceeded}
    if "max_accuracy_drop" in broken:
        yield "the limits held on the samples of the search, and do not on those that were held out"
        learn = "more epochs or samples to train on" if work.is_training else "samples to train on"
        yield (
            f"what helps, in another folder: more validation data, which bring the two closer; {learn}; or a limit "
            f"above the {verdict.lost.value:.4g} that were lost"
        )
        yield "the samples that were held out have decided once: for a fair second verdict pass new ones as test="
    if "max_latency_ms" in broken:
        yield "the time held in the search, and does not now: search where nothing else runs, or allow more"


def _contradiction(budget: Budget, trials: Sequence[Trial]) -> str:
    """That the limits contradict each other, where each alone is held by a model that was measured; else nothing."""
    measured = [trial for trial in trials if trial.state == "ok" and trial.stage == "measured"]
    allowed = budget.limits.get("max_accuracy_drop")
    small = [trial for trial in measured if not broken_costs(budget, trial)]
    good = [trial for trial in measured if allowed is not None and drop_of(trial) <= allowed]
    if allowed is None or not small or not good:
        return ""
    least, nearest = min(map(drop_of, small)), min(good, key=lambda trial: budget.overshoot(trial.figures))
    return (
        f"the limits contradict each other in what was tried: models that hold those on costs lose {least:.4g} or "
        f"more, and of those that lose at most {allowed:.4g} the nearest exceeds "
        f"{budget.exceeded(nearest.figures)[0]}"
    )
