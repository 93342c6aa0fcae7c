"""`edgeprune latency-files` and `edgeprune latency-table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.atomic import check_folder
from edgeprune.cli import options
from edgeprune.cli.files import check_output_paths, load_model_file, start_tensorflow
from edgeprune.cli.printing import show

_MOST_NAMED = 5


def latency_files_command(
    model: options.ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write; it must not exist.")],
    quantization: options.PlannedQuantizationOption = "none",
    round_to: options.RoundToOption = "1",
    ignore: options.IgnoreOption = None,
    min_channels: options.MinChannelsOption = 1,
    max_ratio: options.MaxRatioOption = 0.9,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
) -> None:
    """Write the files of single operators that a device times for channels --target-latency."""
    check_folder(output)
    start_tensorflow()
    from edgeprune.channels.plan.latency_files import write_latency_files

    keras_model = load_model_file(model, unsafe, custom, None)
    chosen = None if quantization == "none" else quantization
    folder = write_latency_files(
        keras_model,
        output,
        chosen,
        round_to=options.rounding(round_to),
        ignore=ignore or (),
        min_channels=min_channels,
        max_ratio=max_ratio,
    )
    count = len(list((folder / "files").iterdir()))
    show(f"wrote {count} files to {folder}; run {folder / 'run.sh'} BENCHMARK_MODEL, then edgeprune latency-table")


def latency_table_command(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="What latency-files wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .csv or .json table to write.")],
    overwrite: options.OverwriteOption = False,
) -> None:
    """Read what benchmark_model printed of the files, and write the table for channels --latency-table."""
    check_output_paths({output: (".csv", ".json")}, overwrite)
    from edgeprune.latency.device_results import read_latency_results

    table = read_latency_results(folder, output.stem)
    table.save(output, overwrite=overwrite)
    show(f"wrote {output}: {len(table.times)} operators")
    if table.not_run:
        names = [*map(repr, table.not_run[:_MOST_NAMED]), *(["..."] if table.not_run[_MOST_NAMED:] else [])]
        show(f"note: {len(table.not_run)} files did not run to their end, and take no part: {', '.join(names)}")
