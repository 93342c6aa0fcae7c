"""Measured times of single operators: kept on disk for this machine, or read from what a device has measured.

A table says how long each operator takes at each size, by the text of `FileTemplate.key`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.atomic import atomic_path
from edgeprune.latency.timing import Stopwatch
from edgeprune.measure.machine import this_machine
from edgeprune.progress import track
from edgeprune.types import PathLike

_FORMAT = 1
_COLUMNS = ("operator", "milliseconds")
_FILES_AT_ONCE = 400  # a cache is written after as many


@dataclass
class LatencyTable:
    """Times of single operators in milliseconds.

    Attributes:
        times: the time of an operator at its sizes, by the text that names it; NaN where its file does not run alone,
            so that it takes no part.
        device: what they were measured on.
        path: the file that times measured here are added to; None for a table from a device, which only has its own.
    """

    times: dict[str, float]
    device: str
    path: Path | None = None
    num_threads: int = 1
    _new: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def not_run(self) -> list[str]:
        """The operators whose files did not run."""
        return [key for key, time in self.times.items() if math.isnan(time)]

    def __contains__(self, key: str) -> bool:
        return key in self.times

    def measure(self, wanted: Mapping[str, Callable[[], bytes]]) -> None:
        """Time the operators that the table does not have, and keep their times on disk.

        Args:
            wanted: an operator's text to a function that makes its file.

        Raises:
            ValueError: the table is from a device and lacks some; the message says how to measure them.
        """
        missing = {key: made for key, made in wanted.items() if key not in self.times}
        if not missing:
            return
        if self.path is None:
            example = next(iter(missing))
            raise ValueError(
                f"The table of {self.device} lacks {len(missing)} of {len(wanted)} operators that the plan needs, such "
                f"as {example!r}: write files for this model with edgeprune latency-files, with the same "
                "quantization, --round-to, --ignore, --min-channels and --max-ratio as the plan, and time them."
            )
        with Stopwatch(self.num_threads) as stopwatch:
            keys = list(missing)
            times = stopwatch.times(missing[key]() for key in keys)
            timed = zip(keys, track(times, "Timing operators", len(keys)), strict=True)
            for number, (key, milliseconds) in enumerate(timed):
                self._new[key] = milliseconds
                if (number + 1) % _FILES_AT_ONCE == 0:
                    self._keep()
        self._keep()

    def _keep(self) -> None:
        """Add the new times to what the file has by now: another process may have measured meanwhile."""
        assert self.path is not None
        self.times |= {**_cached(self.path), **self._new}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format": _FORMAT, "device": self.device, "times": dict(sorted(self.times.items()))}
        with atomic_path(self.path, overwrite=True) as unfinished:
            unfinished.write_text(json.dumps(content, indent=0), encoding="utf-8")
        self._new.clear()

    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write the table.

        Args:
            path: a `.csv` file, with the columns `operator` and `milliseconds`, or a `.json` file.
            overwrite: whether an existing file may be replaced.

        Returns:
            The path.

        Raises:
            ValueError: the suffix is another one.
            FileExistsError: the file exists and `overwrite` is false.
        """
        path = Path(path)
        suffix = _suffix(path)
        with atomic_path(path, overwrite=overwrite) as unfinished:
            if suffix == ".json":
                content = {"format": _FORMAT, "device": self.device, "times": self.times}
                unfinished.write_text(json.dumps(content, indent=0), encoding="utf-8")
            else:
                with unfinished.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.writer(file)
                    writer.writerow(_COLUMNS)
                    writer.writerows((key, f"{time:.7g}") for key, time in self.times.items())
        return path


def cache_folder() -> Path:
    """Where measured times are kept: `$EDGEPRUNE_CACHE`, or the user's cache folder."""
    if given := os.environ.get("EDGEPRUNE_CACHE"):
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgeprune"
    base = os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgeprune"


def table_of_this_machine(num_threads: int = 1) -> LatencyTable:
    """The times measured on this machine so far, to which new ones are added.

    They lie in a file of the cache folder for each processor, version of the runtime and number of threads.

    Args:
        num_threads: threads of the interpreter.
    """
    machine = this_machine()
    simd = "+".join(machine.simd)
    device = f"{machine.cpu} ({simd}), {machine.runtime}, {num_threads} thread{'s' if num_threads > 1 else ''}"
    path = cache_folder() / "latency" / f"{hashlib.sha256(device.encode()).hexdigest()[:16]}.json"
    return LatencyTable(_cached(path), device, path, num_threads)


def _cached(path: Path) -> dict[str, float]:
    """The times in a file of the cache; none where there is no such file, or one that cannot be read."""
    try:
        return _times_of_json(path)[0]
    except (OSError, ValueError):
        return {}


def read_latency_table(path: PathLike) -> LatencyTable:
    """Read a table of operators that a device has measured.

    Args:
        path: a `.csv` file with the columns `operator` and `milliseconds`, or the `.json` file that `LatencyTable.save`
            writes. `edgeprune latency-files` writes the files to measure. A time of `nan` is of an operator that does
            not run alone, and takes no part.

    Returns:
        The table, for `plan_channels(latency_table=...)`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such table; the message names the line.

    Example:
        >>> table = LatencyTable({"conv 8x8x3 -> 8x8x16": 0.2}, "Pixel 8")
        >>> read_latency_table(table.save("pixel.csv")).times
        {'conv 8x8x3 -> 8x8x16': 0.2}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No table of latencies at {path}")
    if _suffix(path) == ".json":
        try:
            times, device = _times_of_json(path)
        except ValueError as error:
            raise ValueError(f"{path} is no table of latencies: {error}") from error
    else:
        times, device = _times_of_csv(path), path.stem
    if not times:
        raise ValueError(f"{path} is no table of latencies: it has no times.")
    return LatencyTable(times, device)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".json"):
        raise ValueError(f"A table of latencies is a .csv or a .json file; got {path}.")
    return suffix


def _times_of_json(path: Path) -> tuple[dict[str, float], str]:
    content: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("times"), dict):
        raise ValueError(f"it lacks 'format': {_FORMAT} and 'times'")
    times = {key: _milliseconds(time, f"operator {key!r}") for key, time in content["times"].items()}
    return times, str(content.get("device"))


def _times_of_csv(path: Path) -> dict[str, float]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns: Sequence[str] = reader.fieldnames or ()
        if not set(_COLUMNS) <= set(columns):
            raise ValueError(f"{path} must have the columns {' and '.join(_COLUMNS)}; it has {list(columns)}.")
        return {
            row["operator"]: _milliseconds(row["milliseconds"], f"{path}, line {reader.line_num}") for row in reader
        }


def _milliseconds(value: float | str, where: str) -> float:
    try:
        time = float(value)
    except (TypeError, ValueError):
        time = -1.0
    if not (0 <= time < math.inf or math.isnan(time)):
        raise ValueError(f"{where}: milliseconds must be a number of 0 or more; got {value!r}.")
    return time
