"""`edgeprune verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.files import load_model, named_metric, read_data, start_tensorflow
from edgeprune.cli.options import Json, MetricName, NoXnnpack, Threads, Unsafe
from edgeprune.cli.printing import show, show_json


def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .tflite file.")],
    model: Annotated[Path | None, typer.Option(exists=True, help="The Keras model it was converted from.")] = None,
    data: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A .npz file; x_test and y_test are used if there.")
    ] = None,
    metric: MetricName = None,
    threads: Threads = 1,
    no_xnnpack: NoXnnpack = False,
    unsafe: Unsafe = False,
    as_json: Json = False,
) -> None:
    """Run a .tflite file, compare it with its Keras model, and count its zeros.

    Exit code 1 if something is wrong with the file.
    """
    arrays = None if data is None else read_data(data)
    start_tensorflow()
    from edgeprune.export.verify import verify_tflite

    result = verify_tflite(
        file,
        None if model is None else load_model(model, unsafe),
        arrays and arrays.x_test,
        arrays and arrays.y_test,
        metric=named_metric(metric),
        threads=threads,
        xnnpack=not no_xnnpack,
    )
    show_json(result.to_dict()) if as_json else show(result)
    if not result.passed:
        raise typer.Exit(1)
