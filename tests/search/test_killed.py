"""Searches that are killed at random moments and continued come to the same answer."""

import random
import subprocess
import sys
import textwrap
import time

import pytest

from edgeprune.search import read_search

PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from search.small_net import data, trained_net
import edgeprune as ep

ep.compress(
    trained_net(), data(96, 2), data(120, 1), target="cortex-m", max_accuracy_drop=0.2, epochs=1, num_trials=8,
    num_finalists=2, output_dir={folder!r}, bundle=False, resume=True, verbose=False,
)
"""


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path, request):
    def start(folder):
        program = textwrap.dedent(PROGRAM).format(tests=str(request.path.parents[1]), folder=str(folder))
        return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)

    begin = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    seconds = time.monotonic() - begin
    chance = random.Random(0)
    for _ in range(6):
        process = start(tmp_path / "killed")
        try:
            process.wait(chance.uniform(0.3, 1.0) * seconds)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert start(tmp_path / "killed").wait() == 0
    whole, killed = (read_search(tmp_path / name / "trials.jsonl") for name in ("whole", "killed"))
    figures = [[(one.settings, one.state, one.figures, one.score) for one in found.trials] for found in (whole, killed)]
    assert figures[0] == figures[1] and whole.ending == killed.ending
    files = [(tmp_path / name / "model.tflite").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]
