"""What asks for trials: journals that are continued after a stop at any trial, limits on time, what is reported."""

import math
from dataclasses import replace

import numpy as np
import pytest
from search.test_journal_file import SEARCH

from edgeprune.search.budget import Budget
from edgeprune.search.engines.runner import JournalRunner
from edgeprune.search.journal.trial_journal import TrialJournal
from edgeprune.search.strategies.directions import Directions
from edgeprune.search.strategies.finalists import Finalists
from edgeprune.search.strategies.guided import guided
from edgeprune.search.strategies.sampled import sampled
from edgeprune.search.trial.files import TrialFiles
from edgeprune.search.trial.job import Made
from edgeprune.search.trial.record import Candidate

BUDGET = Budget(max_accuracy_drop=0.3, max_size=60)


class FormulaEngine:
    """Makes trials of a model of 32 channels: half of what is removed is lost."""

    def __init__(self, stop_after=math.inf, seconds=0.0):
        self.count, self._stop_after, self._seconds = 0, stop_after, seconds

    def made(self, jobs):
        for job in jobs:
            if self.count >= self._stop_after:
                raise KeyboardInterrupt
            self.count += 1
            share = job.candidate.widths.get("stem", 32) / 32
            lost = (1 - share) / (2 if job.weights is None else 4)
            figures = {"accuracy_drop": lost, "macs": 100 * share, "size": 100 * share}
            if job.stage == "quick":
                yield Made("ok", {**figures, "quick_score": 1 - lost}, seconds=self._seconds)
            else:
                content, weights = f"file of {share}".encode(), [np.full(2, share)]
                assert job.weights is None or (job.weights[0].tolist(), job.parts_done) == ([share, share], 1)
                figures |= {"score": 1 - lost}
                yield Made("ok", figures, seconds=self._seconds, content=content, weights=weights)


def candidate(settings):
    share = settings["keep"]["stem"] if "keep" in settings else settings["target_macs"]
    if share < 0.1:
        raise ValueError("nothing is so small")
    epochs = (settings["epochs"],) if "epochs" in settings else ()
    quantization = "int8" if settings.get("way") else None
    widths = {} if share >= 1 else {"stem": max(1, round(32 * share))}
    return Candidate(widths, (), 0.0, quantization, settings.get("rounded", False), epochs)


def runner_in(folder, engine, journal, **more):
    made = {"budget": BUDGET, "is_training": False, "baseline": 1.0, **more}
    return JournalRunner(engine, candidate, journal, TrialFiles(folder / "trials"), **made)


def search(folder, engine, strategy, resume=False):
    with TrialJournal(folder / "trials.jsonl", SEARCH, resume=resume) as journal:
        counts = {"num_trials": 8, "num_finalists": 2}
        if strategy == "guided in parts":
            budget = Budget(max_accuracy_drop=0.2)
            runner = runner_in(folder, engine, journal, budget=budget, is_training=True)
            return guided(runner, budget, Directions(epochs=6), **{**counts, "num_finalists": 4}), journal.trials
        runner = runner_in(folder, engine, journal)
        if strategy == "guided":
            return guided(runner, BUDGET, Directions(), **counts), journal.trials
        more = {"sampler": strategy, "num_samples": 8, "seed": 0, "storage": folder / "optuna.jsonl"}
        return sampled(runner, BUDGET, Directions(), ["stem"], **counts, **more), journal.trials


@pytest.mark.parametrize("strategy", ["guided", "guided in parts", "tpe", "nsga2"])
def test_a_stop_after_any_trial_changes_nothing(strategy, tmp_path):
    engine = FormulaEngine()
    whole = search(tmp_path / "whole", engine, strategy)
    assert whole[0].best is not None and engine.count > 5
    assert any("after" in trial.settings for trial in whole[1]) == (strategy == "guided in parts")
    for stop in range(engine.count):
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            search(folder, FormulaEngine(stop), strategy)
        text = (folder / "trials.jsonl").read_bytes()
        (folder / "trials.jsonl").write_bytes(text[: len(text) - stop])  # and the last line may be cut
        rest = FormulaEngine()
        assert search(folder, rest, strategy, resume=True) == whole
        assert rest.count <= engine.count - stop + 1


def test_a_file_that_is_lost_is_made_again_and_weights_are_kept(tmp_path):
    with TrialJournal(tmp_path / "trials.jsonl", SEARCH) as journal:
        runner = runner_in(tmp_path, FormulaEngine(), journal)
        (first,) = runner.measured([{"target_macs": 0.5}])
        files = TrialFiles(tmp_path / "trials")
        assert files.path(first.number).read_bytes() == b"file of 0.5"
        assert [values.tolist() for values in files.weights(first.number)] == [[0.5, 0.5]]
        assert runner.measured([{"target_macs": 0.5}]) == [first]
        (tmp_path / "trials" / "0.npz").unlink()
        (again,) = runner.measured([{"target_macs": 0.5}])
        assert again.number == 1 and again.score == first.score
        quick, failed = runner.quick([{"target_macs": 0.5}, {"target_macs": 0.05}])
        assert quick.quick_score == 0.75 and failed.state == "failed" and "nothing is so small" in failed.error
        assert runner.measured([{"target_macs": 0.5, "way": 1}])[0].quick_score == 0.75
        assert runner.measured([{"target_macs": 1.0}])[0].quick_score == 1.0


def test_shares_of_the_same_widths_are_one_trial(tmp_path):
    engine = FormulaEngine()
    with TrialJournal(tmp_path / "trials.jsonl", SEARCH) as journal:
        runner = runner_in(tmp_path, engine, journal)
        (half,) = runner.measured([{"target_macs": 0.5}])
        assert runner.measured([{"target_macs": 0.505}, {"target_macs": 0.49}]) == [half, half]
        assert engine.count == 1 and journal.trials == [half]
        # What is looked at with fewer samples, in another format, or in another stage is another trial.
        runner.quick([{"target_macs": 0.5, "num_samples": 4}])
        runner.quick([{"target_macs": 0.505}])
        runner.measured([{"target_macs": 0.505, "way": 1}])
        assert engine.count == 4
        # One that was stopped early says nothing of another like it.
        (look,) = runner.quick([{"target_macs": 0.75, "num_samples": 4}])
        runner.stop({"target_macs": 0.75}, look, "others were ahead")
        assert runner.quick([{"target_macs": 0.755}])[0].state == "ok" and engine.count == 6


def coarse(settings):
    """A candidate whose width is a multiple of 8."""
    exact = candidate(settings)
    width = -(-exact.widths.get("stem", 32) // 8) * 8
    return replace(exact, widths={"stem": width} if width < 32 else {})


def models_of(trials):
    return [trial.candidate.widths.get("stem", 32) for trial in trials if trial.stage == "measured"]


def test_a_model_that_was_measured_before_does_not_count_as_another(tmp_path):
    with TrialJournal(None, SEARCH) as journal:
        runner = JournalRunner(
            FormulaEngine(), coarse, journal, TrialFiles(tmp_path), budget=BUDGET, is_training=False, baseline=1.0
        )
        finalists = Finalists(runner, BUDGET, Directions(), most=2)
        finalists.measure_whole()
        for share in (0.7, 0.72, 0.99, 0.68):  # of 24 channels, or all
            finalists.measure({"target_macs": share, "way": 0})
            assert finalists.have_room()
        finalists.measure({"target_macs": 0.4, "way": 0})
        assert models_of(journal.trials) == [32, 24, 16] and not finalists.have_room()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
@pytest.mark.parametrize("limits", [{"max_size": 80}, {"max_accuracy_drop": 0.3}])
def test_sampled_finalists_are_different_models(sampler, limits, tmp_path):
    budget = Budget(**limits)
    with TrialJournal(None, SEARCH) as journal:
        runner = JournalRunner(
            FormulaEngine(), coarse, journal, TrialFiles(tmp_path), budget=budget, is_training=False, baseline=1.0
        )
        counts = {"num_trials": 24, "num_finalists": 2, "num_samples": 8}
        assert sampled(runner, budget, Directions(), ["stem"], sampler=sampler, seed=0, **counts).holds
        first, *others = models_of(journal.trials)
        assert first == 32 and len(others) == len(set(others)) == 2


def test_time_is_shared_and_reported(tmp_path):
    said = []
    with TrialJournal(None, SEARCH) as journal:
        more = {"time_budget": 1000.0, "say": said.append, "counts": {"quick": 9, "measured": 3}}
        runner = runner_in(tmp_path, FormulaEngine(seconds=400.0), journal, **more)
        assert runner.has_time("quick") and runner.has_time("measured")
        runner.measured([{"target_macs": 0.5}])
        later = runner_in(tmp_path, FormulaEngine(seconds=400.0), journal, **more)  # after a stop
        assert later.has_time("quick")  # as at this point of the run before
        later.measured([{"target_macs": 0.5}])
        assert not later.has_time("quick") and later.has_time("measured")
        later.measured([{"target_macs": 0.7}])
        last = runner_in(tmp_path, FormulaEngine(), journal, **more)
        last.measured([{"target_macs": 0.5}, {"target_macs": 0.7}])
        assert not last.has_time("measured")
    with TrialJournal(None, SEARCH) as journal:
        runner = runner_in(tmp_path, FormulaEngine(seconds=400.0), journal, **more)
        runner.measured([{"target_macs": 0.5, "epochs": 4}])
        later = runner_in(tmp_path, FormulaEngine(), journal, **more)
        later.measured([{"target_macs": 0.5, "epochs": 4}])  # 600 s are left, of which an epoch takes 100
        assert later.has_time("measured", 5) and not later.has_time("measured", 6)
    with TrialJournal(None, SEARCH) as journal:
        runner = runner_in(tmp_path, FormulaEngine(seconds=300.0), journal, rounding_epochs=2, **more)
        runner.measured([{"target_macs": 0.5, "rounded": True}])
        later = runner_in(tmp_path, FormulaEngine(), journal, rounding_epochs=2, **more)
        later.measured([{"target_macs": 0.5, "rounded": True}])  # 700 s are left, of which an epoch takes 150
        assert later.has_time("measured", 4) and not later.has_time("measured", 5)
    assert said[0] == "file 1 of 3, 17 min left" and said[1].startswith("file 2 of 3, best so far loses 0.25, within")


def test_how_many_models_are_trained_and_what_the_rest_may_take_is_reported(tmp_path):
    said = []
    with TrialJournal(None, SEARCH) as journal:
        more = {"is_training": True, "num_models": 3, "say": said.append}
        runner = runner_in(tmp_path, FormulaEngine(seconds=300.0), journal, **more)
        runner.measured([{"target_macs": 1.0}])  # the original is no model that is trained
        assert said[-1].startswith("file 2, best so far") and "min left" not in said[-1]
        runner.measured([{"target_macs": 0.5, "epochs": 1}, {"target_macs": 0.5, "epochs": 2}])
        assert "file 4, 1 of 3 models trained, " in said[-1] and said[-1].endswith(", about 20 min left")
        runner.measured([{"target_macs": 0.6}, {"target_macs": 0.7}])
        assert "3 of 3 models trained" in said[-1] and "min left" not in said[-1]
