"""Searches that are killed at random moments and continued come to the same answer."""

import multiprocessing
import random
import time

import pytest
from search.small_net import data, trained_net

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.schemes import scheme_of
from edgeprune.search import read_search

_KILLS = 10  # of each search
_SEARCHES = {
    "the drop is limited": {"target": "cortex-m", "max_accuracy_drop": 0.2, "num_trials": 8},
    "bits of layers": {"max_accuracy_drop": 0.3, "max_size": 3400, "quantization": "int4", "num_trials": 4},
}


def search(model, folder, name):
    ep.compress(
        flavors.load_model(model), data(96, 2), data(120, 1), **_SEARCHES[name], epochs=1,
        num_finalists=2, output_dir=folder, bundle=False, resume=True, verbose=False,
    )  # fmt: skip


def found(folder):
    """What a search came to: its trials but for their times, its ending, and its file."""
    record = read_search(folder / "trials.jsonl")
    trials = [(one.settings, one.candidate, one.state, one.figures, one.score) for one in record.trials]
    return trials, record.ending, (folder / "model.tflite").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", _SEARCHES)
def test_kill_9_at_random_moments(name, tmp_path):
    trained_net().save(tmp_path / "model.keras")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tensorflow", "keras", "edgeprune.search.compress"])  # not at every start

    def started(folder):
        process = processes.Process(target=search, args=(tmp_path / "model.keras", folder, name))
        process.start()
        return process

    started(tmp_path / "first").join()  # the imports take long
    begin = time.monotonic()
    whole = started(tmp_path / "whole")
    whole.join()
    seconds, wanted = time.monotonic() - begin, found(tmp_path / "whole")
    assert whole.exitcode == 0 and wanted[1].winner is not None
    has_own_bits = any(one[1] is not None and scheme_of(one[1].quantization).layers for one in wanted[0])
    assert has_own_bits == (name == "bits of layers")
    chance, kills, searches = random.Random(0), 0, 0
    while kills < _KILLS:
        folder, searches = tmp_path / f"killed {searches}", searches + 1
        while True:
            process = started(folder)
            process.join(chance.uniform(0.0, seconds) if kills < _KILLS else None)
            process.kill()  # which does nothing to one that has ended
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -9
            kills += 1
        assert found(folder) == wanted
