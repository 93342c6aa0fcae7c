"""Where trials are made changes nothing: an engine of the same contract in other processes' stead, and Ray."""

import contextlib
import dataclasses
import os
import pickle
import random
import signal
import subprocess
import threading
from importlib.util import find_spec

import pytest
from search.small_net import data, trained_net

import edgeprune as ep
from edgeprune.search import compress as compressing
from edgeprune.search.trial.maker import Maker

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


def found(model, folder, **settings):
    """What a search by waves of trials ends with."""
    counts = {"search": "tpe", "num_trials": 4, "num_finalists": 1}
    return ep.compress(model, data(96, 2), data(120, 1), output_dir=folder, **{**SETTINGS, **counts, **settings})


def assert_same(one, other):
    """Whether two searches made the same trials, with the same figures, and chose the same file."""
    without_times = [[dataclasses.replace(trial, seconds=0.0) for trial in each.trials] for each in (one, other)]
    assert without_times[0] == without_times[1]
    assert (one.candidate, one.verdict) == (other.candidate, other.verdict)
    assert one.path.read_bytes() == other.path.read_bytes()


def test_trials_made_elsewhere_find_the_same(model, tmp_path, monkeypatch):
    engines = []

    def elsewhere(work, **settings):
        engines.append(Elsewhere(work, **settings))
        return engines[-1]

    monkeypatch.setattr(compressing, "RayEngine", elsewhere)
    local = found(model, tmp_path / "local", quantization=None)
    remote = found(model, tmp_path / "ray", quantization=None, engine="ray", num_workers=3, address="auto")
    assert engines[0].deaths and engines[0].settings["num_workers"] == 3 and engines[0].settings["address"] == "auto"
    assert_same(local, remote)


def test_without_ray_the_error_names_the_extra(monkeypatch, model, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"needs Ray: pip install 'edgeprune\[ray\]'"):
        ep.compress(model, None, data(60, 1), engine="ray", output_dir=tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match="engine must be 'local' or 'ray'"):
        ep.compress(model, None, data(60, 1), engine="spark", output_dir=tmp_path, **SETTINGS)


def busy_worker():
    """The process of a worker of Ray that this process started, and that makes a trial; None where none does."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    parents = {int(pid): int(parent) for pid, parent, _ in rows}

    def is_ours(pid):
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    busy = (int(pid) for pid, _, args in rows if args.startswith("ray::_made_in_worker"))
    return next(filter(is_ours, busy), None)


@contextlib.contextmanager
def a_worker_killed(journal, after):
    """A block in which a worker is killed as it makes the trial after so many; the numbers of those that were."""
    killed, done = [], threading.Event()

    def kill():
        while not killed and not done.wait(0.1):
            begun = journal.exists() and journal.read_bytes().count(b'"record":{"trial"') >= after
            if begun and (pid := busy_worker()) is not None:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_two_workers_of_ray_find_what_one_process_does_and_a_killed_one_changes_nothing(model, tmp_path):
    local = found(model, tmp_path / "local")
    assert local.candidate.widths and local.trials[-1].stage == "measured"
    assert_same(local, found(model, tmp_path / "ray", engine="ray", num_workers=2))
    with a_worker_killed(tmp_path / "killed" / "trials.jsonl", len(local.trials) - 1) as killed:
        remote = found(model, tmp_path / "killed", engine="ray", num_workers=2)
    assert killed, "no worker was killed while it trained the last model"
    assert_same(local, remote)
