"""`edgeprune latency-files` and `edgeprune latency-table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.atomic import check_folder
from edgeprune.cli import options
from edgeprune.cli.files import check_output_paths, load_model_file, start_tensorflow
from edgeprune.cli.printing import show


def latency_files_command(
    model: options.ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write; it must not exist.")],
    quantization: options.PlannedQuantizationOption = "none",
    ignore: options.IgnoreOption = None,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
) -> None:
    """Write the files of single operators that a phone has to time for channels --target-latency."""
    check_folder(output)
    start_tensorflow()
    from edgeprune.channels.plan.latency_files import write_latency_files

    keras_model = load_model_file(model, unsafe, custom, None)
    chosen = None if quantization == "none" else quantization
    folder = write_latency_files(keras_model, output, chosen, ignore=ignore or ())
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
