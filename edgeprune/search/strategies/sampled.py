"""The searches that sample: Optuna's TPE and NSGA-II over the width of each group, and its successive halving.

Optuna's own journal, `optuna.jsonl`, is written again from the trials at each run, so that a search that was stopped
continues from the trials alone; `optuna-dashboard` opens it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.search.budget import Budget
from edgeprune.search.engines.runner import Runner, Settings
from edgeprune.search.strategies.directions import SPARSITIES, Directions
from edgeprune.search.strategies.finalists import (
    Finalists,
    Outcome,
    broken_costs,
    drop_of,
    holds_all,
    quick_drop_allowed,
)
from edgeprune.search.trial.record import Trial
from edgeprune.search.trial.table import pareto_front

if TYPE_CHECKING:
    import optuna

_WAVE = 4  # trials that are asked for at once, on any number of workers, so that these do not change what is found
_STEP = 0.125  # of the fractions of channels that are kept
_FIRST_SAMPLES = 4  # the first look at a trial is on one in so many samples
_CONSTRAINTS = "constraints"


def sampled(
    runner: Runner,
    budget: Budget,
    directions: Directions,
    groups: Sequence[str],
    *,
    sampler: str,
    num_trials: int,
    num_finalists: int,
    num_samples: int,
    seed: int,
    storage: Path | None = None,
) -> Outcome:
    """Search.

    Args:
        runner: makes the trials.
        budget: the limits.
        directions: what may be done beside widths.
        groups: names of the groups that can lose channels.
        sampler: `"tpe"` or `"nsga2"`.
        num_trials: quick trials at most.
        num_finalists: models that are trained and measured at most, beside the original.
        num_samples: how many samples a quick trial is scored on.
        seed: of the sampler.
        storage: the file for Optuna's journal; None for none.

    Returns:
        The best measured trial.

    Raises:
        ImportError: Optuna is not installed.

    Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization, 2011 (TPE); Deb et al., A Fast and Elitist
    Multiobjective Genetic Algorithm, 2002 (NSGA-II); Jamieson and Talwalkar, Non-stochastic Best Arm Identification,
    2016 (successive halving).
    """
    check_optuna()
    finalists = Finalists(runner, budget, directions, num_finalists)
    whole = finalists.measure_whole()
    if budget.costs and holds_all(budget, whole):
        return Outcome(whole, True)  # nothing has to be cut
    if finalists.holds_in_four_bits():
        return finalists.outcome()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's notes on what is experimental
        study = _Study(runner, budget, directions, groups, finalists.way, sampler, seed, storage)
        quick = study.trials(num_trials, num_samples)
    _measure(runner, budget, finalists, quick)
    return finalists.finish()


def check_optuna() -> None:
    """Refuse to begin without Optuna.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ImportError("search='tpe' and 'nsga2' need Optuna: pip install 'edgeprune[search]'") from error


class _Study:
    """A study of Optuna's, whose trials a runner makes."""

    def __init__(
        self,
        runner: Runner,
        budget: Budget,
        directions: Directions,
        groups: Sequence[str],
        way: int,
        sampler: str,
        seed: int,
        storage: Path | None,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.runner, self.budget, self.directions = runner, budget, directions
        self.groups, self.is_single = groups, sampler == "tpe"
        narrow = set(directions.untrained_four_bits) - {way} if budget.costs else ()
        self.ways = [way, *sorted(narrow)]
        shared: dict[str, Any] = {"seed": seed, "constraints_func": lambda trial: trial.user_attrs[_CONSTRAINTS]}
        made: Any
        if self.is_single:
            made = optuna.samplers.TPESampler(n_startup_trials=2 * _WAVE, constant_liar=True, **shared)
        else:
            made = optuna.samplers.NSGAIISampler(population_size=3 * _WAVE, **shared)
        self.study = optuna.create_study(
            storage=_storage(storage),
            sampler=made,
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
            study_name="compress",
            directions=["minimize"] if self.is_single else ["minimize", "minimize"],
        )

    def trials(self, count: int, num_samples: int) -> list[Trial]:
        """Quick trials, those that worked."""
        found: list[Trial] = []
        for start in range(0, count, _WAVE):
            if not self.runner.has_time("quick"):
                break
            asked = [self.study.ask() for _ in range(min(_WAVE, count - start))]
            wanted = [(trial, self._settings(trial)) for trial in asked]
            if self.is_single:
                wanted = self._after_first_look(wanted, num_samples // _FIRST_SAMPLES)
            made = self.runner.quick([settings for _, settings in wanted])
            for (trial, _), result in zip(wanted, made, strict=True):
                self._tell(trial, result)
            found += [result for result in made if result.state == "ok"]
        return found

    def _settings(self, trial: optuna.Trial) -> Settings:
        settings: dict[str, Any] = {
            "keep": {name: trial.suggest_float(f"keep/{name}", _STEP, 1.0, step=_STEP) for name in self.groups},
            "way": trial.suggest_categorical("way", self.ways),
        }
        if self.directions.num_blocks:
            settings["num_blocks"] = trial.suggest_int("num_blocks", 0, self.directions.num_blocks)
        if self.directions.compresses_zeros:
            settings["sparsity"] = trial.suggest_categorical("sparsity", (0.0, *SPARSITIES))
        return settings

    def _after_first_look(
        self, wanted: Sequence[tuple[optuna.Trial, Settings]], num_samples: int
    ) -> list[tuple[optuna.Trial, Settings]]:
        """The trials that successive halving does not stop after a look at few samples."""
        import optuna

        if num_samples < 1:
            return list(wanted)
        looks = self.runner.quick([{**settings, "num_samples": num_samples} for _, settings in wanted])
        left = []
        for (trial, settings), look in zip(wanted, looks, strict=True):
            if look.state != "ok":
                self._tell(trial, look)
                continue
            trial.report(self._objectives(look)[0] + max(0.0, *self._excesses(look)), 1)
            if trial.should_prune():
                self.runner.stop(settings, look, f"stopped after {num_samples:,} samples: others were ahead")
                trial.set_user_attr(_CONSTRAINTS, self._excesses(look))
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                left.append((trial, settings))
        return left

    def _tell(self, trial: optuna.Trial, made: Trial) -> None:
        import optuna

        if made.state != "ok":
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        trial.set_user_attr(_CONSTRAINTS, self._excesses(made))
        self.study.tell(trial, self._objectives(made))

    def _objectives(self, trial: Trial) -> list[float]:
        """What is to become small: the drop with limits on costs, else the MACs; of several objectives both."""
        if not self.is_single:
            return [drop_of(trial), trial.macs or 0.0]
        return [drop_of(trial) if self.budget.costs else trial.macs or 0.0]

    def _excesses(self, trial: Trial) -> list[float]:
        """How far each limit is exceeded, relative to it: above 0 where it is; what a look did not measure is not."""
        figures, limits = trial.figures, self.budget.limits
        found = [figures.get(name.removeprefix("max_"), 0.0) / limits[name] - 1 for name in self.budget.costs]
        allowed = quick_drop_allowed(self.budget, self.runner)
        if math.isfinite(allowed):
            found.append((drop_of(trial) - allowed) / (allowed or 0.01))
        return found


def _storage(path: Path | None) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if path is None:
        return None
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


def _measure(runner: Runner, budget: Budget, finalists: Finalists, quick: Sequence[Trial]) -> None:
    """Measured trials: within limits on costs those that lose least, else by bisection along the Pareto front."""
    for settings in _within_costs(budget, quick) if budget.costs else ():
        if not finalists.have_room():
            return
        finalists.measure(settings)
    if budget.costs:
        return
    front = pareto_front(quick, stage="quick")
    allowed = quick_drop_allowed(budget, runner)
    low, high = 0, len(front) - 1
    place = next((place for place, trial in enumerate(front) if drop_of(trial) <= allowed), high)
    while low <= high and finalists.have_room():
        passes = finalists.passes(finalists.measure(front[place].settings))
        low, high = (low, place - 1) if passes else (place + 1, high)
        place = (low + high) // 2


def _within_costs(budget: Budget, quick: Sequence[Trial]) -> Iterator[Settings]:
    """The settings of trials that hold the limits on costs, the least drop first; where none does, the nearest."""
    fitting = [trial for trial in quick if not broken_costs(budget, trial)]
    if fitting:
        yield from (trial.settings for trial in sorted(fitting, key=drop_of))
    else:
        nearest = sorted(quick, key=lambda trial: budget.overshoot({**trial.figures, "accuracy_drop": 0.0}))
        yield from (trial.settings for trial in nearest)
