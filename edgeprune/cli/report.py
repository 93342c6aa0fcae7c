"""`edgeprune report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.files import (
    check_output_paths,
    class_names,
    load_model_file,
    measured_on,
    named_metric,
    start_tensorflow,
)
from edgeprune.cli.options import (
    LARGEST,
    CustomOption,
    DataOption,
    LabelColumnsOption,
    MetricOption,
    NumThreadsOption,
    OverwriteOption,
    UnsafeOption,
    target_names,
)
from edgeprune.cli.printing import show


def report_command(
    model: Annotated[Path, typer.Argument(exists=True, help="A .keras or .h5 file, or a SavedModel folder.")],
    files: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, help="The .tflite files; times are relative to the first."),
    ],
    data: DataOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .html file to write.")] = Path("report.html"),
    label_columns: LabelColumnsOption = None,
    converted_from: Annotated[
        Path | None,
        typer.Option(exists=True, help="The model that the files were converted from, where it is a smaller one."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(autocompletion=target_names, help="The device whose memories the files are held against."),
    ] = None,
    max_accuracy_drop: Annotated[
        str | None, typer.Option("--max-drop", help="How much worse the score may be: 1% or 0.01, in its own unit.")
    ] = None,
    max_flash: Annotated[str | None, typer.Option(help="A limit on flash for file and code: 256 KiB.")] = None,
    max_ram: Annotated[str | None, typer.Option(help="A limit on RAM for the arena: 64 KiB.")] = None,
    max_latency_ms: Annotated[str | None, typer.Option("--max-latency", help="Time of one run: 20 ms.")] = None,
    max_size: Annotated[str | None, typer.Option(help="The file's size: 256 KiB.")] = None,
    metric: MetricOption = None,
    num_samples: Annotated[int, typer.Option(min=1, help="How many samples layers are compared on at most.")] = 50,
    num_runs: Annotated[int, typer.Option(min=1, max=LARGEST, help="Timed runs of each file.")] = 50,
    num_threads: NumThreadsOption = 1,
    overwrite: OverwriteOption = False,
    unsafe: UnsafeOption = False,
    custom: CustomOption = None,
) -> None:
    """Write an HTML report on .tflite files beside their model: scores, sizes, times, errors and widths by layer."""
    from edgeprune.data import open_data
    from edgeprune.search.budget import device_and_budget

    check_output_paths({output: (".html",)}, overwrite)
    device, _ = device_and_budget(target, max_accuracy_drop, max_flash, max_ram, max_latency_ms, max_size)
    source, scored_by = open_data(data, label_columns or ()), named_metric(metric, data)
    start_tensorflow()
    from edgeprune.report.model_report import write_report

    keras_model = load_model_file(model, unsafe, custom)
    samples = source.read(keras_model)
    smaller = None if converted_from is None else load_model_file(converted_from, unsafe, custom)
    write_report(
        keras_model,
        files,
        samples.test,
        output,
        converted_from=smaller,
        target=device,
        max_accuracy_drop=max_accuracy_drop,
        max_flash=max_flash,
        max_ram=max_ram,
        max_latency_ms=max_latency_ms,
        max_size=max_size,
        metric=scored_by,
        class_names=class_names(samples, keras_model),
        num_samples=num_samples,
        num_runs=num_runs,
        num_threads=num_threads,
        overwrite=overwrite,
    )
    show(f"report: {output}\n{measured_on(samples)}")
