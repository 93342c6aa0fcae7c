"""How long .tflite files take, timed against each other.

A machine's speed drifts by more than pruning gains, so the files take turns in one process, in a new order each
round, and the ratio to the first file is computed within each round before the median is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.measure.machine import Machine, this_machine
from edgeprune.number_checks import check_whole
from edgeprune.progress import track
from edgeprune.text_table import text_table
from edgeprune.tflite.runtime import Port, Runtime


@dataclass(frozen=True)
class Latency:
    """The time of one file.

    Attributes:
        file: the .tflite file.
        milliseconds: median time of one inference.
        spread: interquartile range of the times, in milliseconds.
        ratio: time relative to the first file: the median of the rounds' ratios.
        ratio_spread: interquartile range of the rounds' ratios.
    """

    file: str
    milliseconds: float
    spread: float
    ratio: float
    ratio_spread: float


@dataclass(frozen=True)
class Benchmark:
    """The times of several files, measured in turns.

    Attributes:
        rows: one for each file, in the order they were passed.
        num_runs: how many rounds were timed.
        warmup_runs: how many rounds ran before, untimed.
        num_threads: threads for each interpreter.
        use_xnnpack: whether XNNPACK could be used.
        samples: every time in milliseconds, `(files, runs)`.
        machine: what they were timed on.
    """

    rows: tuple[Latency, ...]
    num_runs: int
    warmup_runs: int
    num_threads: int
    use_xnnpack: bool
    samples: np.ndarray
    machine: Machine

    def __str__(self) -> str:
        """A table of the files, and what they were timed on."""
        header, *rows = self._cells()
        return f"{text_table(header, rows)}\n{self._conditions()}"

    def _repr_html_(self) -> str:
        head, *body = [[escape(cell) for cell in row] for row in self._cells()]
        header = "".join(f"<th>{cell}</th>" for cell in head)
        rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body)
        caption = escape(self._conditions())
        return f"<table><caption>{caption}</caption><tr>{header}</tr>{rows}</table>"

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON; every single time is left out."""
        return {
            "num_runs": self.num_runs,
            "warmup_runs": self.warmup_runs,
            "num_threads": self.num_threads,
            "use_xnnpack": self.use_xnnpack,
            "machine": asdict(self.machine),
            "files": [asdict(row) for row in self.rows],
        }

    def _cells(self) -> list[list[str]]:
        rows = [["file", "median ms", "IQR ms", "ratio", "IQR"]]
        for row in self.rows:
            figures = (row.milliseconds, row.spread, row.ratio, row.ratio_spread)
            rows.append([row.file, *(f"{figure:.3f}" for figure in figures)])
        return rows

    def _conditions(self) -> str:
        threads = f"{self.num_threads} thread{'s' if self.num_threads > 1 else ''}"
        xnnpack = f"XNNPACK {'on' if self.use_xnnpack else 'off'}"
        return f"{self.num_runs} runs interleaved, {threads}, {self.machine.runtime}, {xnnpack}\non {self.machine}"


def benchmark(
    files: Sequence[str | Path],
    *,
    num_runs: int = 50,
    warmup_runs: int = 5,
    max_seconds: float | None = None,
    num_threads: int = 1,
    use_xnnpack: bool = True,
    seed: int = 0,
) -> Benchmark:
    """Time .tflite files against each other, interleaved in one process.

    Args:
        files: one or more .tflite files; ratios are relative to the first.
        num_runs: rounds to time; each round runs every file once, in a new order.
        warmup_runs: rounds before, untimed.
        max_seconds: stop after this many seconds of timed rounds even if fewer than `num_runs` are done.
        num_threads: threads for each interpreter.
        use_xnnpack: whether the interpreters may use XNNPACK.
        seed: seed of the random inputs and of the order.

    Returns:
        For each file the median time and its ratio to the first, with their spreads. The times are those of this
        machine; another processor ranks the files its own way.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file does not load or run, or an argument is out of range.

    Example:
        >>> timed = benchmark(["model.tflite"], num_runs=3, warmup_runs=1)
        >>> [(row.file, row.ratio) for row in timed.rows], timed.samples.shape
        ([('model.tflite', 1.0)], (1, 3))
    """
    if isinstance(files, str | Path):
        files = [files]
    if not files:
        raise ValueError("Pass one or more .tflite files to time.")
    for name, count, fewest in (
        ("num_runs", num_runs, 1),
        ("warmup_runs", warmup_runs, 0),
        ("num_threads", num_threads, 1),
    ):
        check_whole(name, count, fewest)
    if max_seconds is not None and not max_seconds > 0:  # NaN is not
        raise ValueError(f"max_seconds must be more than 0, got {max_seconds!r}.")
    generator = np.random.default_rng(seed)
    runtimes = [ready_runtime(file, generator, num_threads, use_xnnpack) for file in files]
    order = random.Random(seed)
    for _ in track(range(warmup_runs), "Warming up"):
        _time_round(runtimes, order)
    rounds = list(track(_rounds(runtimes, order, num_runs, max_seconds), "Timing", num_runs))
    times = np.array(rounds).T * 1000
    ratios = times / times[0]
    rows = tuple(
        Latency(str(file), float(np.median(row)), _spread(row), float(np.median(ratio)), _spread(ratio))
        for file, row, ratio in zip(files, times, ratios, strict=True)
    )
    return Benchmark(rows, times.shape[1], warmup_runs, num_threads, use_xnnpack, times, this_machine())


def ready_runtime(
    file: str | Path,
    generator: np.random.Generator,
    num_threads: int = 1,
    use_xnnpack: bool = True,
    isolated: bool = True,
) -> Runtime:
    """A file opened with random inputs set, to be invoked and timed; the options are those of `Runtime`.

    Raises:
        ValueError: it does not load, or an input has a type for which no random values are made.
    """
    runtime = Runtime(file, num_threads=num_threads, use_xnnpack=use_xnnpack, isolated=isolated)
    for port in runtime.inputs.values():
        runtime.set_input(port, _random_input(port, generator))
    return runtime


def _rounds(
    runtimes: list[Runtime], order: random.Random, num_runs: int, max_seconds: float | None
) -> Iterator[list[float]]:
    end = None if max_seconds is None else time.perf_counter() + max_seconds
    for _ in range(num_runs):
        yield _time_round(runtimes, order)
        if end is not None and time.perf_counter() >= end:
            return


def _time_round(runtimes: list[Runtime], order: random.Random) -> list[float]:
    """Run every file once, in random order; the seconds of each, in the files' order."""
    seconds = [0.0] * len(runtimes)
    for number in order.sample(range(len(runtimes)), len(runtimes)):
        begin = time.perf_counter()
        runtimes[number].invoke()
        seconds[number] = time.perf_counter() - begin
    return seconds


def _random_input(port: Port, generator: np.random.Generator) -> np.ndarray:
    """Random values of the input's type: small non-negative numbers, so that an index is in range; one word."""
    if port.holds_text:
        return port.encode(np.full(port.shape, "word"))
    if port.dtype.kind == "f":
        return generator.random(port.shape).astype(port.dtype)
    if port.quantized:
        limits = np.iinfo(port.dtype)
        return generator.integers(limits.min, limits.max, port.shape, port.dtype, endpoint=True)
    if port.dtype.kind in "iub":
        return generator.integers(0, 2, port.shape).astype(port.dtype)
    raise ValueError(f"Input {port.name!r} has dtype {port.dtype}, for which no random values are made.")


def _spread(values: np.ndarray) -> float:
    low, high = np.percentile(values, [25, 75])
    return float(high - low)
