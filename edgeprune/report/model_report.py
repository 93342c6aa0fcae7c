"""The report on a model and its files as one HTML file: `write_report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeprune import flavor
from edgeprune.atomic import check_paths
from edgeprune.measure.metrics import MetricLike
from edgeprune.number_checks import check_whole
from edgeprune.progress import status
from edgeprune.report.model_figures import measure_model
from edgeprune.report.model_page import model_page
from edgeprune.report.page.figures import require_plotly
from edgeprune.report.page.rendering import write_page
from edgeprune.search.budget import device_and_budget
from edgeprune.targets import Target
from edgeprune.types import DataLike, Model


def write_report(
    model: Model,
    files: str | Path | Sequence[str | Path],
    data: DataLike,
    path: str | Path = "report.html",
    *,
    converted_from: Model | None = None,
    target: str | Target | None = None,
    max_accuracy_drop: float | str | None = None,
    max_flash: float | str | None = None,
    max_ram: float | str | None = None,
    max_latency_ms: float | str | None = None,
    max_size: float | str | None = None,
    max_gzip_size: float | str | None = None,
    metric: MetricLike | None = None,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    num_samples: int = 50,
    num_runs: int = 50,
    num_threads: int = 1,
    overwrite: bool = False,
    verbose: bool = True,
) -> Path:
    """Measure .tflite files beside their Keras model, and write what was found as one HTML file.

    The page has scores, those of each class, sizes, the time and memory of each operator, the quantization error and
    the width of each layer, what is frozen, and what it was measured with. It loads nothing from elsewhere.

    Args:
        model: the Keras model (`keras` 3 or `tf_keras`) that files are compared with, the original.
        files: one or more .tflite files, the first of which times are relative to. They are treated as untrusted, and
            tried out in a process of their own.
        data: samples `(x, y)`, or `x` alone, in any form that `model.fit` accepts.
        path: the HTML file to write.
        converted_from: the model that the files were converted from, where that is a smaller one than `model`.
        target: a device, by its name or as a `Target`, whose flash and RAM the files are held against.
        max_accuracy_drop: limits that the summary holds the files against, as `compress` accepts them. The drop is
            that of the first score with a direction.
        max_flash: bytes of flash.
        max_ram: bytes of RAM.
        max_latency_ms: milliseconds of one run.
        max_size: bytes of the file.
        max_gzip_size: bytes of the file after gzip.
        metric: what to score by, as `edgeprune.score` accepts it; left out, the compiled metrics.
        class_names: what the classes are called; left out, their numbers.
        title: the heading; left out, the model's name.
        num_samples: how many samples the layers are compared on at most.
        num_runs: how often each file is timed.
        num_threads: threads for the interpreter.
        overwrite: whether a file that exists may be replaced.
        verbose: whether to draw what is being done.

    Returns:
        The file.

    Raises:
        TypeError: an argument is of another type than stated.
        FileExistsError: `path` exists, and `overwrite` is false.
        FileNotFoundError: one of the files does not exist.
        ImportError: plotly is not installed.
        ValueError: a file is damaged or is not of this model, the data do not fit, or an argument is out of range.

    Example:
        >>> write_report(model, "model.tflite", (x, y), "report.html", num_runs=3, verbose=False).name
        'report.html'
    """
    flavor.check_built_model(model)
    if converted_from is not None:
        flavor.check_built_model(converted_from)
    paths = [files] if isinstance(files, str | Path) else list(files)
    if not paths:
        raise ValueError("Pass one or more .tflite files to report on.")
    for name, count in (("num_samples", num_samples), ("num_runs", num_runs), ("num_threads", num_threads)):
        check_whole(name, count, 1)
    limits = (max_accuracy_drop, max_flash, max_ram, max_latency_ms, max_size, max_gzip_size)
    device, budget = device_and_budget(target, *limits)
    require_plotly()
    check_paths(path, overwrite=overwrite)
    with status("Measuring", verbose=verbose) as say:
        found = measure_model(
            model,
            paths,
            data,
            converted_from=converted_from,
            target=device,
            budget=budget,
            metric=metric,
            class_names=class_names,
            num_samples=num_samples,
            num_runs=num_runs,
            num_threads=num_threads,
            say=lambda what: say(f"Measuring {what}"),
        )
    return write_page(model_page(found, title or model.name), path, overwrite=overwrite)
