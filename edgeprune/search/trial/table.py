"""The trials of a search as a table, and those of them that no other one beats."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, get_args

from edgeprune.search.trial.record import FIGURES, Stage, Trial

if TYPE_CHECKING:
    import pandas

COSTS = tuple(name for name in FIGURES if name != "accuracy_drop")
_OF_CANDIDATE = ("sparsity", "quantization", "quantize_aware", "removed_blocks")


def trial_row(trial: Trial) -> dict[str, Any]:
    """A trial as a row: what was measured, then `setting.NAME` and `width.GROUP` for what it is.

    Args:
        trial: the trial.

    Returns:
        Values by the names of the columns; what was not measured is None.

    Example:
        >>> trial_row(Trial(0, "quick", {"target_macs": 0.5}, macs=100.0))["setting.target_macs"]
        0.5
    """
    row = trial.to_dict()
    settings, candidate = row.pop("settings"), row.pop("candidate") or {}
    row |= {name: candidate.get(name) for name in _OF_CANDIDATE}
    row |= {f"setting.{name}": value for name, value in settings.items()}
    return row | {f"width.{name}": width for name, width in candidate.get("widths", {}).items()}


def trials_frame(trials: Iterable[Trial]) -> pandas.DataFrame:
    """The trials as a data frame, a row for each, indexed by their numbers.

    Args:
        trials: the trials.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("A data frame needs pandas: pip install 'edgeprune[report]'") from error
    rows = [trial_row(trial) for trial in trials]
    columns = list(dict.fromkeys(name for row in rows or [trial_row(Trial(0, "quick"))] for name in row))
    return pandas.DataFrame(rows, columns=columns).set_index("number")


def pareto_front(trials: Iterable[Trial], cost: str = "macs", stage: Stage = "measured") -> tuple[Trial, ...]:
    """The trials that no other one beats: those that lose less cost more.

    Args:
        trials: the trials.
        cost: the figure that is set against what is lost: `"macs"`, `"params"`, `"size"`, `"gzip_size"`, `"flash"`,
            `"ram"`, `"arena"` or `"latency_ms"`.
        stage: `"measured"`, or `"quick"` for those without training.

    Returns:
        The trials by their cost, the cheapest first; none without both figures. Of equals the first.

    Raises:
        ValueError: there is no such cost or stage.

    Example:
        >>> trials = [Trial(n, "quick", accuracy_drop=d, macs=m) for n, d, m in ((0, 0, 9), (1, 0.1, 5), (2, 0.2, 7))]
        >>> [trial.number for trial in pareto_front(trials, stage="quick")]
        [1, 0]
    """
    if cost not in COSTS:
        raise ValueError(f"cost must be one of {', '.join(COSTS)}; got {cost!r}.")
    if stage not in get_args(Stage):
        raise ValueError(f"stage must be one of {', '.join(get_args(Stage))}; got {stage!r}.")
    known = [
        (trial.figures[cost], trial.figures["accuracy_drop"], trial)
        for trial in trials
        if trial.stage == stage and trial.state == "ok" and {cost, "accuracy_drop"} <= trial.figures.keys()
    ]
    front: list[Trial] = []
    least = float("inf")
    for _, drop, trial in sorted(known, key=lambda one: one[:2]):
        if drop < least:
            front.append(trial)
            least = drop
    return tuple(front)
