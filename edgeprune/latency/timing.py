"""How long many small .tflite files take on this machine, timed in turns in a process of their own.

The process is this module run as a script: it reads a job a line from its standard input, and answers with a line. A
file that ends LiteRT then ends that process alone.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

_BATCH_BYTES = 256 << 20  # of files that are open at once
_BATCH_FILES = 400
_ROUNDS = (7, 40)  # at least and at most
_SECONDS_A_BATCH = 2.0


class Stopwatch:
    """A process that times files; use it in a `with` statement.

    Args:
        num_threads: threads of each interpreter.
    """

    def __init__(self, num_threads: int = 1) -> None:
        self.num_threads = num_threads
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.kill()
            self._process.communicate()
            self._process = None

    def times(self, files: Iterable[bytes]) -> Iterator[float]:
        """The milliseconds of each file, in their order: the median of the rounds, NaN where it does not run."""
        for batch in _batches(files):
            yield from (statistics.median(of_one) if of_one else float("nan") for of_one in self._run(batch, _ROUNDS))

    def rounds(self, files: Sequence[bytes], num_rounds: int) -> np.ndarray:
        """The milliseconds of each file in each round, `(files, rounds)`; all of them must run.

        Raises:
            ValueError: one does not run.
        """
        found = self._run(list(files), (num_rounds, num_rounds))
        if not all(found):
            raise ValueError("The model's file does not run in the LiteRT interpreter of this machine.")
        return np.array(found)

    def _run(self, batch: list[bytes], rounds: tuple[int, int]) -> list[list[float]]:
        """The milliseconds of each file of a batch in each round; none of one that does not run."""
        answer = self._answered(batch, rounds)
        if answer is not None:
            return answer
        self.close()
        if len(batch) == 1:  # it is what ended the process
            return [[]]
        half = len(batch) // 2
        return self._run(batch[:half], rounds) + self._run(batch[half:], rounds)

    def _answered(self, batch: list[bytes], rounds: tuple[int, int]) -> list[list[float]] | None:
        """What the process answers; None where it ends."""
        with tempfile.TemporaryDirectory() as folder:
            for number, content in enumerate(batch):
                (Path(folder) / f"{number}.tflite").write_bytes(content)
            job = {"folder": folder, "files": len(batch), "rounds": rounds, "num_threads": self.num_threads}
            process = self._started()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                return None
        return json.loads(answer) if answer else None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self._process


def _batches(files: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for content in files:
        if batch and (len(batch) == _BATCH_FILES or sum(map(len, batch)) + len(content) > _BATCH_BYTES):
            yield batch
            batch = []
        batch.append(content)
    if batch:
        yield batch


def _answer(job: dict[str, Any]) -> list[list[float]]:
    """Time the files of a job: milliseconds by file and round; none for a file that does not run."""
    from edgeprune.measure.latency import ready_runtime

    generator, runtimes = np.random.default_rng(0), {}
    for number in range(job["files"]):
        try:
            file = Path(job["folder"]) / f"{number}.tflite"
            runtime = ready_runtime(file, generator, job["num_threads"], isolated=False)
            runtime.invoke()
            runtimes[number] = runtime
        except ValueError:
            continue
    # One thread's own time is not lengthened by other processes, as the clock's is.
    clock = time.thread_time if job["num_threads"] == 1 else time.perf_counter
    order = random.Random(0)
    found: dict[int, list[float]] = {number: [] for number in runtimes}
    fewest, most = job["rounds"]
    begin = time.perf_counter()
    for done in range(most):
        if done >= fewest and time.perf_counter() - begin > _SECONDS_A_BATCH:
            break
        for number in order.sample(sorted(runtimes), len(runtimes)):
            start = clock()
            runtimes[number].invoke()
            found[number].append(1000 * (clock() - start))
    return [found.get(number, []) for number in range(job["files"])]


if __name__ == "__main__":
    for line in sys.stdin:
        result = _answer(json.loads(line))
        print(json.dumps(result), flush=True)
