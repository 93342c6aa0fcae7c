"""Optuna's searches on models whose costs and losses are formulas, and on a net."""

import json

import pytest
from search.formula import Formula

from edgeprune.search.budget import Budget
from edgeprune.search.strategies.directions import Directions
from edgeprune.search.strategies.sampled import sampled
from edgeprune.search.trial.record import Trial

GROUPS = ("stem", "conv")
SETTINGS = {"num_trials": 40, "num_finalists": 5, "num_samples": 100, "seed": 0}


def search(budget, sampler, directions=None, **settings):
    runner = Formula(budget)
    found = sampled(runner, budget, directions or Directions(), GROUPS, sampler=sampler, **{**SETTINGS, **settings})
    return found, runner


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_limits_hold_and_the_same_seed_finds_the_same(sampler):
    budget = Budget(max_accuracy_drop=0.3)
    found, runner = search(budget, sampler)
    assert found.holds and found.best.stage == "measured" and found.best.macs < 500
    again, other = search(budget, sampler)
    assert runner.trials == other.trials and again == found
    different, _ = search(budget, sampler, seed=1)
    assert different.best.settings != found.best.settings


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_of_models_that_are_small_enough_the_one_that_loses_least_is_taken(sampler):
    budget = Budget(max_size=50, max_accuracy_drop=2.0)
    found, runner = search(budget, sampler)
    quick = [one for one in runner.trials if one.stage == "quick" and one.size is not None and one.size <= 50]
    assert found.holds and found.best.size <= 50
    assert found.best.accuracy_drop == min(one.accuracy_drop for one in quick if one.state == "ok")


def test_successive_halving_stops_trials_after_a_look():
    _, runner = search(Budget(max_accuracy_drop=0.3), "tpe")
    stopped = [one for one in runner.trials if one.state == "pruned"]
    looks = [one for one in runner.trials if "num_samples" in one.settings]
    assert 20 <= len(looks) <= 40 and 5 <= len(stopped) < len(looks)
    assert all("others were ahead" in one.error for one in stopped)
    assert all(one.settings["num_samples"] == 25 for one in looks)
    _, runner = search(Budget(max_accuracy_drop=0.3), "nsga2")  # several objectives have no one order
    assert not any(one.state == "pruned" for one in runner.trials)


def test_a_trial_that_fails_is_passed_over_and_what_may_vary_does():
    class Failing(Formula):
        def quick(self, several):
            return [
                Trial(0, "quick", one, state="failed", error="no") if one["keep"]["stem"] < 0.5 else self.one(one)
                for one in several
            ]

        def one(self, asked):
            return super().quick([asked])[0]

    budget = Budget(max_gzip_size=1000000, max_accuracy_drop=0.0)
    runner = Failing(budget, rounding=1.0)
    directions = Directions(num_blocks=2, compresses_zeros=True)
    sampled(runner, budget, directions, GROUPS, sampler="tpe", **SETTINGS)
    made = [one.settings for one in runner.trials if one.stage == "quick"]
    assert {one["num_blocks"] for one in made} == {0, 1, 2} and len({one["sparsity"] for one in made}) == 3


def test_optuna_opens_its_journal(tmp_path):
    import optuna
    from optuna.storages.journal import JournalFileBackend

    path = tmp_path / "new" / "optuna.jsonl"
    for _ in range(2):  # the second run writes it again
        search(Budget(max_accuracy_drop=0.3), "tpe", storage=path, num_trials=8)
    assert all(json.loads(line) for line in path.read_text().splitlines())
    study = optuna.load_study(
        study_name="compress", storage=optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    )
    assert len(study.trials) == 8
