"""Asks for trials on behalf of a strategy: what the journal knows is not made again, what is made is written to it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from edgeprune.search.budget import Budget
from edgeprune.search.engines.engine import Engine
from edgeprune.search.journal.trial_journal import TrialJournal
from edgeprune.search.trial.files import TrialFiles
from edgeprune.search.trial.job import Job, Made, failed
from edgeprune.search.trial.record import Candidate, Stage, Trial

# Of a time budget, what quick trials may use up.
_QUICK_SHARE = 0.3

Settings = Mapping[str, Any]


class Runner(Protocol):
    """What a strategy asks for trials."""

    @property
    def is_training(self) -> bool:
        """Whether measured trials are trained."""

    @property
    def baseline(self) -> float:
        """The original's score."""

    def has_time(self, stage: Stage, epochs: int = 0) -> bool:
        """Whether there is time for another trial, which trains for so many epochs."""

    def quick(self, several: Sequence[Settings]) -> list[Trial]:
        """Trials without training, in the order of their settings."""

    def measured(self, several: Sequence[Settings]) -> list[Trial]:
        """Trials on their files, in the order of their settings."""

    def stop(self, settings: Settings, look: Trial, reason: str) -> None:
        """Record a quick trial that is not made, as a look at it was not good enough."""


class JournalRunner:
    """Makes trials with an engine, and keeps them in a journal.

    Args:
        engine: makes them.
        candidate: returns what settings mean, or raises ValueError.
        journal: what is already known, and where trials are kept.
        files: those of measured trials.
        budget: the limits, for what is reported.
        is_training: whether measured trials are trained.
        baseline: the original's score.
        rounding_epochs: how many epochs those are trained for their rounding that are.
        time_budget: seconds for all trials; None for no limit.
        counts: how many trials of each stage there will be at most, for what is reported.
        num_models: how many models beside the original will be trained and measured at most, for what is reported.
        say: is called with what is being done.
        log: is called with each trial that was made.
    """

    def __init__(
        self,
        engine: Engine,
        candidate: Callable[[Settings], Candidate],
        journal: TrialJournal,
        files: TrialFiles,
        *,
        budget: Budget,
        is_training: bool,
        baseline: float,
        rounding_epochs: int = 0,
        time_budget: float | None = None,
        counts: Mapping[Stage, int] | None = None,
        num_models: int | None = None,
        say: Callable[[str], None] = lambda text: None,
        log: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self._engine, self._candidate, self._journal, self._files = engine, candidate, journal, files
        self._budget, self.is_training, self.baseline = budget, is_training, baseline
        self._rounding_epochs = rounding_epochs
        self._time_budget, self._counts, self._say, self._log = time_budget, dict(counts or {}), say, log
        self._num_models = num_models
        self._begin = time.monotonic()
        self._asked: dict[
            int, Trial
        ] = {}  # the trials of this run: those of a run before count once they are asked for

    def has_time(self, stage: Stage, epochs: int = 0) -> bool:
        """Whether there is time for another trial: of files, for one as slow as the slowest so far."""
        if self._time_budget is None:
            return True
        left = self._time_budget - (time.monotonic() - self._begin)
        if stage == "quick":
            return left > (1 - _QUICK_SHARE) * self._time_budget
        made = [trial for trial in self._asked.values() if trial.stage == "measured"]
        each = [trial.seconds / count for trial in made if (count := self._epochs_of(trial))]
        longest = epochs * max(each) if epochs and each else max((trial.seconds for trial in made), default=0.0)
        return left > longest

    def _epochs_of(self, trial: Trial) -> int:
        """How many epochs a measured trial was trained for."""
        is_rounded = trial.candidate is not None and trial.candidate.quantize_aware
        return trial.settings.get("epochs", 0) + (self._rounding_epochs if is_rounded else 0)

    def quick(self, several: Sequence[Settings]) -> list[Trial]:
        """Trials without training, in the order of their settings."""
        return self._trials("quick", several)

    def measured(self, several: Sequence[Settings]) -> list[Trial]:
        """Trials on their files, in the order of their settings."""
        return self._trials("measured", several)

    def stop(self, settings: Settings, look: Trial, reason: str) -> None:
        """Record a quick trial that is not made, as a look at it was not good enough."""
        if self._known("quick", settings) is None:
            figures = {"quick_score": look.quick_score, **look.figures}
            self._kept("quick", settings, look.candidate, Made("pruned", figures, reason))

    def _trials(self, stage: Stage, several: Sequence[Settings]) -> list[Trial]:
        """The trials with these settings; those that the journal does not know are made, in waves of an engine."""
        found: list[Trial | None] = [self._known(stage, settings) for settings in several]
        wanted: list[tuple[int, Candidate]] = []
        for place, settings in enumerate(several):
            if found[place] is None and settings not in several[:place]:
                try:
                    candidate = self._candidate(settings)
                except Exception as error:
                    found[place] = self._kept(stage, settings, None, failed(error))
                    continue
                found[place] = self._known(stage, settings, candidate)
                if found[place] is None:
                    wanted.append((place, candidate))
        jobs = [self._job(stage, candidate, several[place]) for place, candidate in wanted]
        self._report(stage)
        for (place, candidate), made in zip(wanted, self._engine.made(jobs), strict=True):
            found[place] = self._kept(stage, several[place], candidate, made)
            self._report(stage)
        # What was asked for twice at once is one trial.
        firsts = [found[several.index(settings)] for settings in several]
        return [trial for trial in firsts if trial is not None]

    def _job(self, stage: Stage, candidate: Candidate, settings: Settings) -> Job:
        if "after" not in settings:
            return Job(stage, candidate, settings.get("num_samples"))
        before = self._journal.trials[settings["after"]]
        assert before.candidate is not None, "a trial that failed is not continued"
        weights, parts_done = self._files.weights(before.number), len(before.candidate.epochs)
        return Job(stage, candidate, weights=weights, parts_done=parts_done)

    def _known(self, stage: Stage, settings: Settings, candidate: Candidate | None = None) -> Trial | None:
        """The trial with these settings, or of the same model: two shares of the MACs may round to the same widths."""
        for trial in self._journal.trials:
            is_same_model = (
                candidate is not None
                and candidate == trial.candidate
                and trial.state == "ok"
                and trial.settings.get("num_samples") == settings.get("num_samples")
            )
            if trial.stage == stage and (is_same_model or dict(trial.settings) == dict(settings)):
                is_there = stage == "quick" or trial.state != "ok" or self._files.has(trial.number)
                if is_there:
                    if trial.number not in self._asked:
                        self._asked[trial.number] = trial
                        self._begin -= trial.seconds
                    return trial
        return None

    def _kept(self, stage: Stage, settings: Settings, candidate: Candidate | None, made: Made) -> Trial:
        """Write a trial to the journal, after its files."""
        number = len(self._journal.trials)
        figures: dict[str, Any] = dict(made.figures)
        if stage == "measured":
            figures["quick_score"] = self._quick_score(candidate)
        trial = Trial(
            number, stage, dict(settings), candidate, made.state, error=made.error, seconds=made.seconds, **figures
        )
        if made.content is not None and made.weights is not None:
            self._files.keep(number, made.content, made.weights)
        self._journal.add(trial)
        self._asked[number] = trial
        self._log(trial)
        return trial

    def _quick_score(self, candidate: Candidate | None) -> float | None:
        """The quick score of the same widths, however quantized; that of the original is its own."""
        if candidate is not None and candidate.is_whole:
            return self.baseline
        for trial in self._journal.trials:
            if trial.stage == "quick" and candidate is not None and trial.candidate is not None:
                if _shape(trial.candidate) == _shape(candidate) and trial.quick_score is not None:
                    return trial.quick_score
        return None

    def _report(self, stage: Stage) -> None:
        """Say which trial is made, the best so far against the limits, and the time left."""
        own = [trial for trial in self._journal.trials if trial.stage == stage]
        count = self._counts.get(stage)
        of = f" of {count}" if count is not None and count > len(own) else ""
        parts = [f"{'trial' if stage == 'quick' else 'file'} {len(own) + 1}{of}"]
        smaller = [trial for trial in own if trial.candidate is not None and not trial.candidate.is_whole]
        made = len({str(_shape(trial.candidate)) for trial in smaller if trial.candidate is not None})
        following = None if stage == "quick" or self._num_models is None else max(0, self._num_models - made)
        if made and following is not None:
            parts.append(f"{made} of {made + following} models {'trained' if self.is_training else 'measured'}")
        if best := self._best(own):
            parts.append(f"best so far {best}")
        if self._time_budget is not None:
            left = max(0.0, self._time_budget - (time.monotonic() - self._begin))
            parts.append(f"{math.ceil(left / 60)} min left")
        elif made and following:  # each takes as long as those before
            left = following * sum(trial.seconds for trial in smaller) / made
            parts.append(f"about {math.ceil(left / 60)} min left")
        self._say(", ".join(parts))

    def _best(self, trials: Sequence[Trial]) -> str:
        made = [trial for trial in trials if trial.state == "ok"]
        if not made:
            return ""
        best = min(made, key=lambda trial: (self._budget.overshoot(trial.figures), trial.macs or math.inf))
        over = self._budget.exceeded(best.figures)
        return f"loses {best.accuracy_drop:.3g}, {f'{over[0]}' if over else 'within the limits'}"


def _shape(candidate: Candidate) -> tuple[Any, ...]:
    return dict(candidate.widths), candidate.removed_blocks, candidate.sparsity
