"""What a search for a budget ended with, as data and as text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from edgeprune.measure.metrics import MetricLike
from edgeprune.schemes import scheme_of
from edgeprune.search.budget import amount_text
from edgeprune.search.trial.record import Candidate, Trial
from edgeprune.search.trial.table import pareto_front, trials_frame
from edgeprune.search.verdict.gate import Verdict
from edgeprune.text_table import text_table
from edgeprune.types import Model

if TYPE_CHECKING:
    import pandas


@final
@dataclass(frozen=True)
class CompressResult:
    """What a search for a budget ended with.

    Attributes:
        accepted: whether the file holds every limit on the samples that were held out.
        path: the file: the best one, or the nearest where none holds; None where none could be made.
        model: the Keras model of the file.
        candidate: what was removed, and how the file is quantized.
        verdict: the figures of the file on the samples that were held out; None where no file could be made.
        trials: all that was tried, in order.
        rank_correlation: Spearman's, of the scores without training with those on the file, over the models that have
            both; NaN for fewer than three.
        recipe: the file from which `apply_recipe` makes the model again.
        bundle: the folder of the bundle; None where none was written.
        notes: what the user should know, a sentence each.
        metric: what models were judged by: what was passed as `metric`; None for the compiled one.
    """

    accepted: bool
    path: Path | None
    model: Model | None
    candidate: Candidate | None
    verdict: Verdict | None
    trials: tuple[Trial, ...]
    rank_correlation: float
    recipe: Path | None
    bundle: Path | None
    notes: tuple[str, ...]
    metric: MetricLike | None = None

    def __str__(self) -> str:
        """The verdict and a table of the trials."""
        head = str(self.verdict) if self.verdict is not None else "not accepted: no model could be made"
        table = text_table(
            ("trial", "stage", "asked for", "score", "lost", "MACs", "costs", "seconds"), map(_row, self.trials)
        )
        known = not math.isnan(self.rank_correlation)
        ranks = f"{self.rank_correlation:.2f}" if known else "not known: fewer than three models have both"
        lines = [head, table, f"rank correlation of the scores without training with those of the files: {ranks}"]
        places = (("file", self.path), ("recipe", self.recipe), ("bundle", self.bundle))
        lines += [f"{name}: {path}" for name, path in places if path is not None]
        if self.path is not None:
            lines.append(f"all of it as one page: edgeprune report {self.path.parent}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        return {
            "accepted": self.accepted,
            "file": self.path and str(self.path),
            "candidate": self.candidate and self.candidate.to_dict(),
            "verdict": self.verdict and self.verdict.to_dict(),
            "trials": [trial.to_dict() for trial in self.trials],
            "rank_correlation": None if math.isnan(self.rank_correlation) else self.rank_correlation,
            "recipe": self.recipe and str(self.recipe),
            "bundle": self.bundle and str(self.bundle),
            "notes": list(self.notes),
        }

    def to_dataframe(self) -> pandas.DataFrame:
        """The trials as a pandas data frame, a row for each.

        Raises:
            ImportError: pandas is not installed.
        """
        return trials_frame(self.trials)

    def pareto(self, cost: str = "macs") -> tuple[Trial, ...]:
        """The measured trials that no other one beats: those that lose less cost more.

        Args:
            cost: the figure that is set against what is lost, such as `"macs"`, `"size"` or `"latency_ms"`.

        Returns:
            The trials by their cost, the cheapest first.

        Raises:
            ValueError: there is no such cost.
        """
        return pareto_front(self.trials, cost)


def rank_correlation(trials: Sequence[Trial]) -> float:
    """Spearman's correlation of the scores without training with those on the file, over models that have both.

    Args:
        trials: those of a search.

    Returns:
        -1 to 1; NaN for fewer than three models, or where one of them does not vary.
    """
    pairs = {  # of a model that was trained in parts, the last one counts
        json.dumps({**trial.candidate.to_dict(), "epochs": None}, sort_keys=True): (trial.quick_score, trial.score)
        for trial in trials
        if trial.candidate is not None and trial.stage == "measured" and None not in (trial.quick_score, trial.score)
    }
    if len(pairs) < 3:
        return math.nan
    ranks = [_ranks(np.array(values, float)) for values in zip(*pairs.values(), strict=True)]
    if min(np.ptp(one) for one in ranks) == 0:
        return math.nan
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value; equal ones share the mean of theirs."""
    return np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])


def _row(trial: Trial) -> tuple[str, ...]:
    figures = trial.figures
    costs = ", ".join(
        amount_text(name, figures[name]) for name in ("size", "flash", "ram", "latency_ms") if name in figures
    )
    scores = ["" if one is None else f"{one:.4g}" for one in (trial.stage_score, trial.accuracy_drop)]
    macs = f"{figures['macs']:,.0f}" if "macs" in figures else ""
    last = costs if trial.error is None else _shortened(trial.error)
    return str(trial.number), trial.stage, settings_text(trial), *scores, macs, last, f"{trial.seconds:.1f}"


def settings_text(trial: Trial) -> str:
    """What a strategy asked for, in a few words."""
    settings, parts = dict(trial.settings), list[str]()
    if "target_macs" in settings:
        parts.append(f"{settings['target_macs']:.1%} of the MACs")
    if "within" in settings:
        parts.append(f"{settings['within']:.0%} of the limits")
    if "keep" in settings:
        kept = list(settings["keep"].values())
        parts.append(f"{np.mean(kept):.0%} of the channels" if any(kept) else "one channel in each group")
    if settings.get("weighed_by") in ("curves", "local"):
        parts.append(settings["weighed_by"])
    if settings.get("num_blocks"):
        parts.append(f"{settings['num_blocks']} block{'s' * (settings['num_blocks'] != 1)} removed")
    if settings.get("sparsity"):
        parts.append(f"{settings['sparsity']:.0%} zeros")
    if trial.candidate is not None and trial.candidate.epochs:
        epochs = trial.candidate.epochs
        parts.append(f"{' + '.join(map(str, epochs))} epoch{'s' * (epochs != (1,))}")
    if trial.candidate is not None and trial.stage == "measured":
        scheme = scheme_of(trial.candidate.quantization)
        name = str(scheme.name or "float32")
        if count := len(scheme.layers):
            name += f" with other bits in {count} layer{'s' * (count != 1)}"
        parts.append(f"{name}{', trained for it' if trial.candidate.quantize_aware else ''}")
    return ", ".join(parts)


def _shortened(error: str) -> str:
    return error.partition(". ")[0].partition(": ")[2][:60] or error[:60]
