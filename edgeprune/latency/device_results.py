"""Files of single operators to time on a device, and what its `benchmark_model` has printed of them."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from edgeprune.atomic import atomic_folder
from edgeprune.latency.table import LatencyTable
from edgeprune.types import PathLike

_INDEX = "operators.csv"
_RESULTS = "results"
_AVERAGE = re.compile(r"Inference \(avg\): ([0-9.]+(?:e[+-]?[0-9]+)?)")
_SCRIPT = r"""#!/bin/sh
# Times the files of this folder on a phone:      run.sh path/to/benchmark_model [threads]
# On the machine that it runs on, as a board is:  run.sh path/to/benchmark_model local [threads]
# benchmark_model is TensorFlow Lite's own tool for the device's processor; adb must see the phone.
set -e
[ -f "$1" ] || { echo "usage: run.sh path/to/benchmark_model [local] [threads]" >&2; exit 2; }
tool="$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
shift
where=phone
[ "$1" != local ] || { where=local; shift; }
threads="${1:-1}"
cd "$(dirname "$0")"
time_files='rm -rf results; mkdir results; for file in files/*.tflite; do
    "$tool" --graph="$file" --num_threads="$threads" --use_xnnpack=true --warmup_runs=3 --num_runs=30 \
        --min_secs=0.02 --warmup_min_secs=0.005 > "results/$(basename "$file" .tflite).txt" 2>&1 ||
        echo "$file does not run"; done'
if [ $where = local ]; then
    eval "$time_files"
else
    adb get-state > /dev/null || { echo "adb sees no phone; to time on this machine pass local" >&2; exit 1; }
    on_phone=/data/local/tmp/edgeprune_latency
    adb shell "rm -rf $on_phone && mkdir -p $on_phone"
    adb push "$tool" $on_phone/benchmark_model
    adb push files $on_phone/
    adb shell "cd $on_phone && chmod +x benchmark_model && tool=./benchmark_model && threads=$threads && $time_files"
    rm -rf results
    adb pull $on_phone/results .
fi
"""


def write_files_to_time(directory: PathLike, files: Mapping[str, Callable[[], bytes]]) -> Path:
    """Write files, an index of what they are, and a script that times them over adb, or where it runs.

    Args:
        directory: a folder that does not exist.
        files: an operator's text to a function that makes its file.

    Returns:
        The folder: `files/`, `operators.csv` with the columns `file` and `operator`, and `run.sh`.

    Raises:
        FileExistsError: the folder exists.
    """
    with atomic_folder(Path(directory)) as folder:
        (folder / "files").mkdir()
        with (folder / _INDEX).open("w", newline="", encoding="utf-8") as index:
            writer = csv.writer(index)
            writer.writerow(("file", "operator"))
            for number, (key, made) in enumerate(files.items()):
                (folder / "files" / f"{number:05}.tflite").write_bytes(made())
                writer.writerow((f"{number:05}", key))
        script = folder / "run.sh"
        script.write_text(_SCRIPT, encoding="utf-8")
        script.chmod(0o755)
    return Path(directory)


def read_latency_results(directory: PathLike, device: str = "the device") -> LatencyTable:
    """Read what `benchmark_model` printed for the files that `write_latency_files` wrote.

    Args:
        directory: the folder, with a text for each file in `results/`: `results/00012.txt` for `files/00012.tflite`.
        device: what they were timed on.

    Returns:
        The table, to be passed as `latency_table=` or saved. Files that did not run to their end take no part: the
        operators in them are its `not_run`.

    Raises:
        FileNotFoundError: there is no index or no result.
        ValueError: all results lack the average time.

    Example:
        >>> folder = write_files_to_time("one_file", {"conv 8x8x3 -> 8x8x16": lambda: b"a .tflite file"})
        >>> (folder / "results").mkdir()  # as run.sh leaves them, in microseconds
        >>> printed = (folder / "results" / "00000.txt").write_text("Inference (avg): 240.5")
        >>> read_latency_results(folder, "Pixel 8").times
        {'conv 8x8x3 -> 8x8x16': 0.2405}
    """
    folder = Path(directory)
    if not (folder / _INDEX).is_file():
        raise FileNotFoundError(f"No {_INDEX} in {folder}: pass a folder that edgeprune latency-files wrote.")
    with (folder / _INDEX).open(newline="", encoding="utf-8") as index:
        keys = {row["file"]: row["operator"] for row in csv.DictReader(index)}
    times: dict[str, float] = {}
    for name, key in keys.items():
        path = folder / _RESULTS / f"{name}.txt"
        if path.is_file():
            found = _AVERAGE.search(path.read_text(encoding="utf-8", errors="replace"))
            times[key] = math.nan if found is None else float(found[1]) / 1000
    if not times:
        raise FileNotFoundError(f"No result in {folder / _RESULTS}: run {folder / 'run.sh'} first.")
    if all(map(math.isnan, times.values())):
        raise ValueError(
            f"No text in {folder / _RESULTS} has an 'Inference (avg)': benchmark_model ran no file to its end."
        )
    return LatencyTable(times, device)
