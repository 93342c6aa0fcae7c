"""Where trials are made changes nothing: an engine of the same contract in other processes' stead, and Ray."""

import dataclasses
import os
import pickle
import random
import signal
import subprocess
from importlib.util import find_spec

import pytest
from search.small_net import data, trained_net

import edgeprune as ep
from edgeprune.search import compress as compressing
from edgeprune.search import engine_ray
from edgeprune.search.budget import Budget
from edgeprune.search.trial_job import Job, Samples, TrialSettings, Work
from edgeprune.search.trial_maker import Maker
from edgeprune.search.trial_record import Candidate
from edgeprune.targets import target

SETTINGS = {"max_accuracy_drop": 0.1, "num_finalists": 2, "epochs": 1, "bundle": False, "verbose": False}


@pytest.fixture(scope="module")
def model():
    return trained_net()


class Elsewhere:
    """Makes trials of a copy of the work, in a random order; every other worker dies before it returns."""

    def __init__(self, work, **settings):
        self._work, self.settings, self.deaths = pickle.dumps(work), settings, 0
        self._makers = [None, None]

    def made(self, jobs):
        found = {}
        for place in random.sample(range(len(jobs)), len(jobs)):
            worker = place % 2
            for attempt in range(2):
                if self._makers[worker] is None:
                    self._makers[worker] = Maker(pickle.loads(self._work))
                result = self._makers[worker].made(pickle.loads(pickle.dumps(jobs[place])))
                if attempt == 0 and worker == 1:
                    self._makers[worker] = None  # it died, and what it made is lost
                    self.deaths += 1
                    continue
                found[place] = pickle.loads(pickle.dumps(result))
                break
        yield from (found[place] for place in range(len(jobs)))

    def close(self):
        pass


def without_times(result):
    return [dataclasses.replace(trial, seconds=0.0) for trial in result.trials]


def test_trials_made_elsewhere_find_the_same(model, tmp_path, monkeypatch):
    engines = []

    def elsewhere(work, **settings):
        engines.append(Elsewhere(work, **settings))
        return engines[-1]

    monkeypatch.setattr(compressing, "RayEngine", elsewhere)
    train, validation = data(96, 2), data(120, 1)
    settings = {**SETTINGS, "search": "tpe", "num_trials": 4, "num_finalists": 1, "quantization": None}
    local = ep.compress(model, train, validation, output_dir=tmp_path / "local", **settings)
    remote = ep.compress(
        model, train, validation, output_dir=tmp_path / "ray", engine="ray", num_workers=3, address="auto", **settings
    )
    assert engines[0].deaths and engines[0].settings["num_workers"] == 3 and engines[0].settings["address"] == "auto"
    assert without_times(local) == without_times(remote) and local.verdict == remote.verdict
    assert local.path.read_bytes() == remote.path.read_bytes()


def test_without_ray_the_error_names_the_extra(monkeypatch, model, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"needs Ray: pip install 'edgeprune\[ray\]'"):
        ep.compress(model, None, data(60, 1), engine="ray", output_dir=tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match="engine must be 'local' or 'ray'"):
        ep.compress(model, None, data(60, 1), engine="spark", output_dir=tmp_path, **SETTINGS)


def busy_worker():
    """The process of a worker of Ray that this process started, and that makes a trial."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, _ in rows}

    def is_ours(pid):
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return next(int(pid) for pid, _, args in rows if args.startswith("ray::_made_in_worker") and is_ours(int(pid)))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_two_workers_of_ray_find_what_one_process_does_and_a_killed_one_changes_nothing(model, tmp_path):
    judged = Samples(*data(60, 1))
    settings = TrialSettings(target("phone"), 1, 32, None, 0)
    work = Work(model, Samples(*data(96, 2)), judged, None, Budget(max_accuracy_drop=0.1), settings)
    jobs = [Job(stage, Candidate({"first": width})) for stage in ("quick", "measured") for width in (8, 12, 20)]
    local = [Maker(work).made(job) for job in jobs]
    engine = engine_ray.RayEngine(work, num_workers=2)
    try:
        made = engine.made(jobs)
        remote = [next(made)]
        os.kill(busy_worker(), signal.SIGKILL)
        remote += list(made)
    finally:
        engine.close()
    for one, other in zip(local, remote, strict=True):
        # Ray's workers compute on one thread each, so that sums round differently, and files are packed differently.
        assert one.figures == pytest.approx(other.figures, rel=2e-3) and one.state == other.state == "ok"
        assert (one.content and len(one.content)) == (other.content and len(other.content))
