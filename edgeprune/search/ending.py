"""The end of a search: the last check of the best file, its recipe and its bundle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.atomic import atomic_path
from edgeprune.bundle.bundle import export_bundle
from edgeprune.measure.predictions import predict
from edgeprune.schemes import Scheme, scheme_of
from edgeprune.search.compress_result import CompressResult, rank_correlation
from edgeprune.search.file_costs import file_costs, file_outputs
from edgeprune.search.finalists import Outcome
from edgeprune.search.gate import Verdict, verdict_on
from edgeprune.search.journal import data_fingerprint
from edgeprune.search.recipe import Recipe
from edgeprune.search.runner import JournalRunner
from edgeprune.search.search_record import SearchEnding
from edgeprune.search.trial_job import Samples, Work
from edgeprune.search.trial_journal import TrialJournal
from edgeprune.search.trial_maker import Maker, judge_for
from edgeprune.search.trial_record import Candidate, Trial
from edgeprune.types import Model

MODEL, RECIPE, BUNDLE = "model.tflite", "recipe.json", "bundle"


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a search begins with.

    Attributes:
        work: what trials are made from.
        held: the samples that only the last check sees.
    """

    work: Work
    held: Samples


@dataclass(frozen=True, eq=False)
class Ending:
    """The last check, and all that is written when a search is done.

    Attributes:
        maker: makes models.
        prepared: what the search began with.
        journal: its trials.
        runner: knows their files.
        folder: where what is written lies.
        settings: those of the search, by the names of `compress`'s arguments.
        bundle: whether to write a bundle.
    """

    maker: Maker
    prepared: Prepared
    journal: TrialJournal
    runner: JournalRunner
    folder: Path
    settings: Mapping[str, Any]
    bundle: bool

    def result(self, found: Outcome) -> CompressResult:
        """Hold the best file against the budget, and write what belongs to it."""
        trials = tuple(self.journal.trials)
        correlation = rank_correlation(trials)
        known = None if math.isnan(correlation) else correlation
        best = found.best
        if best is None or best.candidate is None:
            notes: tuple[str, ...] = ("every trial failed: see their errors",)
            self.journal.end(SearchEnding(None, False, None, known, notes))
            return CompressResult(False, None, None, None, None, trials, correlation, None, None, notes)
        path = self.folder / MODEL
        with atomic_path(path) as unfinished:
            unfinished.write_bytes(self.runner.path_of(best).read_bytes())
        verdict = self._verdict(path)
        model = self._model(best, best.candidate)
        recipe = self._recipe(best.candidate, path)
        bundled, said = self._bundled(model, best.candidate)
        notes = (*_notes(found.holds, best.candidate, verdict, trials), *said)
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
        )

    def _verdict(self, path: Path) -> Verdict:
        work, held = self.prepared.work, self.prepared.held
        before = predict(work.model, held.x, batch_size=work.settings.batch_size)
        judge, budget = judge_for(work, held, before), work.budget.with_memories(work.settings.target)
        costs = file_costs(path, work.settings.target, list(budget.limits))
        after = file_outputs(path, work.model, held.x)
        return verdict_on(budget, costs, judge, before, after, seed=work.settings.seed)

    def _model(self, best: Trial, candidate: Candidate) -> Model:
        if candidate.is_whole and not candidate.quantize_aware:
            return self.prepared.work.model
        model = self.maker.untrained(candidate)
        model.set_weights(self.runner.weights_of(best))
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
            data="validation" if work.train is None else "train",
            model_fingerprint=self.journal.header.model_fingerprint,
            data_fingerprint=data_fingerprint([*vars(samples).values()]),
            size=path.stat().st_size,
        )
        recipe.save(self.folder / RECIPE)
        return self.folder / RECIPE

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
                overwrite=True,
            )
        except (ValueError, ImportError) as error:
            return None, [f"no bundle was written: {' '.join(str(error).split())}"]
        return written.directory, []


def plain(value: object) -> Any:
    """A setting as JSON has it: `Scheme`s as dicts, whole numbers without a point."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():  # bytes, which are whole
        return int(value)
    return vars(value) if isinstance(value, Scheme) else value


def _notes(holds: bool, candidate: Candidate, verdict: Verdict, trials: Sequence[Trial]) -> Iterator[str]:
    failures = [trial for trial in trials if trial.stage == "measured" and trial.state != "ok"]
    if failures:
        yield f"{len(failures)} of the models that were to be measured failed, the last with {failures[-1].error}"
    if candidate.is_whole and verdict.accepted:
        yield "nothing had to be cut: the file is the original, quantized"
    if holds and not verdict.accepted:
        yield "the limits held on the samples of the search, and do not on those that were held out"
    if not holds:
        yield "no model that was tried holds every limit: this is the nearest"
    limit = verdict.allowed_drop
    if verdict.accepted and limit is not None and verdict.lost.high > limit:
        yield f"the interval of the drop reaches beyond the limit of {limit:.4g}: more validation data would narrow it"
