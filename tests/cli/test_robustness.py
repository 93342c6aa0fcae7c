"""A slice of the malformed inputs and kills of benchmarks/robustness.py, on a seed of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "robustness.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and waits by Linux's handles of processes")
def test_no_input_ends_in_a_traceback_and_no_kill_loses_a_file():
    arguments = [sys.executable, str(PROGRAM), "--inputs", "75", "--kills", "10", "--seed", "99"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "75 malformed inputs, 10 kills" in done.stdout
