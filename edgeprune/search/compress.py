"""From a budget to a model: `compress`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from edgeprune import flavor
from edgeprune.atomic import atomic_path, check_parents
from edgeprune.channels.graph.trace import trace
from edgeprune.data.batches import sample_count
from edgeprune.measure.macs import count_macs
from edgeprune.measure.metrics import MetricLike
from edgeprune.measure.parameters import count_parameters
from edgeprune.measure.predictions import gather, predict
from edgeprune.number_checks import check_seed, check_whole
from edgeprune.progress import status
from edgeprune.search.budget import Budget, amount_text
from edgeprune.search.file_costs import file_costs, file_outputs
from edgeprune.search.gate import Verdict, hold_out, verdict_on
from edgeprune.search.guided import guided
from edgeprune.search.journal import data_fingerprint, fingerprint
from edgeprune.search.judge import judge_of
from edgeprune.search.search_record import SearchEnding, SearchHeader, this_environment
from edgeprune.search.trial import Samples, TrialRunner, TrialSettings
from edgeprune.search.trial_journal import TrialJournal
from edgeprune.search.trial_record import Trial
from edgeprune.targets import Target
from edgeprune.targets import target as target_of
from edgeprune.text_table import text_table
from edgeprune.types import DataLike, Model, PathLike, Quantization

TRIALS, MODEL = "trials.jsonl", "model.tflite"


@final
@dataclass(frozen=True)
class CompressResult:
    """What a search for a budget ended with.

    Attributes:
        accepted: whether the file holds every limit on the samples that were held out.
        path: the file: the best one, or the nearest where none holds; None where none could be made.
        model: the Keras model of the file.
        verdict: the figures of the file on the samples that were held out; None where no file could be made.
        trials: all that was tried, in order.
        rank_correlation: Spearman's, of the scores without training with those on the file, over the models that have
            both; NaN for fewer than three.
        notes: what the user should know, a sentence each.
    """

    accepted: bool
    path: Path | None
    model: Model | None
    verdict: Verdict | None
    trials: tuple[Trial, ...]
    rank_correlation: float
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """The verdict and a table of the trials."""
        head = str(self.verdict) if self.verdict is not None else "not accepted: no model could be made"
        table = text_table(
            ("trial", "stage", "MACs kept", "score", "lost", "MACs", "costs", "seconds"), map(_row, self.trials)
        )
        written = [] if self.path is None else [f"file: {self.path}"]
        return "\n".join([head, table, *written, *(f"note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        return {
            "accepted": self.accepted,
            "file": self.path and str(self.path),
            "verdict": self.verdict and self.verdict.to_dict(),
            "trials": [trial.to_dict() for trial in self.trials],
            "rank_correlation": None if math.isnan(self.rank_correlation) else self.rank_correlation,
            "notes": list(self.notes),
        }


def compress(
    model: Model,
    train: DataLike | None,
    validation: DataLike,
    *,
    target: str | Target = "phone",
    max_accuracy_drop: float | str | None = None,
    max_flash: float | str | None = None,
    max_ram: float | str | None = None,
    max_latency_ms: float | str | None = None,
    max_size: float | str | None = None,
    metric: MetricLike | None = None,
    quantization: Quantization | None = "int8",
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float | None = None,
    num_trials: int = 8,
    num_finalists: int = 3,
    directory: PathLike = "compressed",
    resume: bool = False,
    seed: int = 0,
    verbose: bool = True,
) -> CompressResult:
    """Find a smaller model that holds a budget, and prove its file.

    Candidates keep different shares of the model's multiplications. Each is cut, made up for by reconstruction and
    scored without training; the best few are trained after the original (with `train`), written as files and measured.
    Half of the validation data is looked at meanwhile. The other half decides at the end, once: the file is accepted
    if every limit holds there.

    With limits on costs the widest model that holds them is looked for, with `max_accuracy_drop` alone the narrowest.

    Args:
        model: a trained model of `keras` 3 or `tf_keras`. It is not changed.
        train: samples to train on, `(x, y)`, or `x` alone: then the original is the only teacher. None for no training.
        validation: samples to judge on, in any form that `model.fit` accepts; without labels the share of samples
            whose class is kept is the figure (`metric="agreement"`), or with `metric="distance"` how far outputs move.
        target: the device, a name of `edgeprune targets` or a `Target`. Latency on phones and computers is that of this
            machine.
        max_accuracy_drop: how much worse the figure may be: 0.01 or `"1%"`, in the figure's own unit.
        max_flash: bytes of flash for file and code, such as `"256 KiB"`; on microcontrollers and NPUs.
        max_ram: bytes of RAM for the arena, on microcontrollers.
        max_latency_ms: milliseconds of one run, on phones, computers and NPUs.
        max_size: bytes of the file.
        metric: what is judged by, as `edgeprune.score` accepts it; left out, the compiled metric.
        quantization: of the files, as `export_tflite` accepts it; None for float32.
        epochs: passes over the training samples for each model that is measured.
        batch_size: samples per step.
        learning_rate: of the training; left out, that of the model.
        num_trials: models at most that are judged without training.
        num_finalists: models at most that are trained and measured.
        directory: the folder for the file `model.tflite`, the files of the trials and their journal.
        resume: whether a search that was stopped in this folder continues.
        seed: of the split, the reconstruction, the training and the interval.
        verbose: whether to draw what is being done.

    Returns:
        The verdict, the file, its model, and all trials.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: nothing is limited, or a limit cannot be held on this target; the data do not fit the model, are
            too few, or the figure has no direction; nothing of the model can be cut; the folder's journal is of another
            search.
        FileExistsError: the folder has trials, and `resume` is false.

    Example:
        >>> result = compress(model, None, (x, y), max_accuracy_drop=1.0, num_trials=1, num_finalists=1)
        >>> result.accepted, result.path.name
        (True, 'model.tflite')
    """
    budget = Budget(max_accuracy_drop, max_flash, max_ram, max_latency_ms, max_size)
    device = target_of(target)
    budget.check_target(device)
    for name, count, least in (
        ("epochs", epochs, 0),
        ("num_trials", num_trials, 1),
        ("num_finalists", num_finalists, 1),
    ):
        check_whole(name, count, least)
    check_seed(seed)
    flavor.check_built_model(model)
    if all(group.frozen is not None for group in trace(model).groups):
        raise ValueError(f"No channel of model {model.name!r} can be removed: inspect(model) says why.")
    training = None if train is None else Samples(*gather(model, train))
    parts = hold_out(*gather(model, validation), seed=seed)
    judged, held = (Samples(*part) for part in parts)
    metric = "agreement" if metric is None and judged.y is None else metric
    before = [predict(model, part.x, batch_size=batch_size) for part in (judged, held)]
    judge, last_judge = (
        judge_of(model, outputs, part.x, part.y, part.sample_weight, metric, batch_size)
        for outputs, part in zip(before, (judged, held), strict=True)
    )
    settings = TrialSettings(device, quantization, epochs, batch_size, learning_rate, seed)
    folder = Path(directory)
    check_parents(folder / TRIALS)
    header = SearchHeader(
        model=model.name,
        model_fingerprint=fingerprint(model, [], []),
        data_fingerprint=data_fingerprint(
            [part for one in (judged, held, training) if one for part in vars(one).values()]
        ),
        target=device.name,
        limits=budget.limits,
        settings={
            "quantization": settings.quantization,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "num_trials": num_trials,
            "num_finalists": num_finalists,
        },
        seed=seed,
        metric=judge.name,
        higher_is_better=judge.higher_is_better,
        baseline=judge.baseline,
        macs=count_macs(model).total,
        params=count_parameters(model).total,
        num_samples=sample_count(judged.x),
        environment=this_environment(),
    )
    with (
        TrialJournal(folder / TRIALS, header, resume=resume) as journal,
        status("Compressing", verbose=verbose) as say,
    ):
        runner = TrialRunner(model, training, judged, judge, settings, budget, journal, folder / "trials")
        found = guided(
            runner,
            budget,
            num_trials=num_trials,
            num_finalists=num_finalists,
            say=lambda text: say(f"Compressing: {text}"),
        )
        trials = tuple(journal.trials)
        correlation = rank_correlation(trials)
        if found.best is None:
            notes: tuple[str, ...] = ("every trial failed: see their errors",)
            journal.end(SearchEnding(None, False, None, None, notes))
            return CompressResult(False, None, None, None, trials, math.nan, notes)
        share = found.best.settings["target_macs"]
        path = folder / MODEL
        with atomic_path(path) as unfinished:
            unfinished.write_bytes(runner.path_of(share).read_bytes())
        after = file_outputs(path, model, held.x)
        costs = file_costs(path, device, list(budget.limits))
        verdict = verdict_on(budget, costs, last_judge, before[1], after, seed=seed)
        notes = tuple(_notes(found.holds, share, verdict))
        known = None if math.isnan(correlation) else correlation
        journal.end(SearchEnding(found.best.number, verdict.accepted, verdict.to_dict(), known, notes))
    return CompressResult(
        accepted=verdict.accepted,
        path=path,
        model=runner.model_of(share),
        verdict=verdict,
        trials=trials,
        rank_correlation=correlation,
        notes=notes,
    )


def _row(trial: Trial) -> tuple[str, ...]:
    figures = trial.figures
    costs = ", ".join(
        amount_text(name, figures[name]) for name in ("size", "flash", "ram", "latency_ms") if name in figures
    )
    scores = ["" if one is None else f"{one:.4g}" for one in (trial.stage_score, trial.accuracy_drop)]
    macs = f"{figures['macs']:,.0f}" if "macs" in figures else ""
    kept = f"{trial.settings['target_macs']:.1%}"
    last = _shortened(trial.error) or costs
    return str(trial.number), trial.stage, kept, *scores, macs, last, f"{trial.seconds:.1f}"


def _shortened(error: str | None) -> str:
    return "" if error is None else error.partition(". ")[0].partition(": ")[2][:60] or error[:60]


def _notes(holds: bool, share: float, verdict: Verdict) -> Iterator[str]:
    if share >= 1 and verdict.accepted:
        yield "nothing had to be cut: the file is the original, quantized"
    if holds and not verdict.accepted:
        yield "the limits held on the samples of the search, and do not on those that were held out"
    if not holds:
        yield "no model that was tried holds every limit: this is the nearest"
    limit = verdict.allowed_drop
    if verdict.accepted and limit is not None and verdict.lost.high > limit:
        yield f"the interval of the drop reaches beyond the limit of {limit:.4g}: more validation data would narrow it"


def rank_correlation(trials: Sequence[Trial]) -> float:
    """Spearman's correlation of the scores without training with those on the file, over models that have both.

    Returns:
        -1 to 1; NaN for fewer than three models, or where one of them does not vary.
    """
    scores: dict[str, dict[float, float]] = {"quick": {}, "measured": {}}
    for trial in trials:
        if trial.stage_score is not None:
            scores[trial.stage][trial.settings["target_macs"]] = trial.stage_score
    shares = sorted(scores["quick"].keys() & scores["measured"].keys())
    if len(shares) < 3:
        return math.nan
    ranks = [_ranks([scores[stage][share] for share in shares]) for stage in ("quick", "measured")]
    if min(np.ptp(one) for one in ranks) == 0:
        return math.nan
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    """The place of each value; equal ones share the mean of theirs."""
    array = np.asarray(values)
    return np.array([(array < value).sum() + ((array == value).sum() - 1) / 2 for value in array])
