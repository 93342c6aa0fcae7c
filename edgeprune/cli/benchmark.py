"""`edgeprune benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.files import start_tensorflow
from edgeprune.cli.printing import show, show_json


def benchmark_command(
    files: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, help="The .tflite files; ratios are relative to the first."),
    ],
    num_runs: Annotated[int, typer.Option(min=1, max=options.LARGEST, help="Timed runs of each file.")] = 50,
    warmup_runs: Annotated[int, typer.Option(min=0, max=options.LARGEST, help="Runs before, untimed.")] = 5,
    num_threads: options.NumThreadsOption = 1,
    no_xnnpack: options.NoXnnpackOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Time .tflite files against each other, interleaved in one process."""
    start_tensorflow()
    from edgeprune.measure import latency

    result = latency.benchmark(
        files, num_runs=num_runs, warmup_runs=warmup_runs, num_threads=num_threads, use_xnnpack=not no_xnnpack
    )
    show_json(result.to_dict()) if as_json else show(result)
