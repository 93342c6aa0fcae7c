"""`edgeprune verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.files import load_model_file, named_metric, open_data_option, start_tensorflow
from edgeprune.cli.printing import show, show_json


def verify_command(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .tflite file.")],
    model: Annotated[Path | None, typer.Option(exists=True, help="The Keras model it was converted from.")] = None,
    data: options.OptionalDataOption = None,
    label_columns: options.LabelColumnsOption = None,
    metric: options.MetricOption = None,
    num_threads: options.NumThreadsOption = 1,
    no_xnnpack: options.NoXnnpackOption = False,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Run a .tflite file, compare it with its Keras model, and count its zeros.

    Exit code 1 if something is wrong with the file.
    """
    source, scored_by = open_data_option(data, label_columns), named_metric(metric, data)
    start_tensorflow()
    from edgeprune.export.verify import verify_tflite

    keras_model = None if model is None else load_model_file(model, unsafe, custom)
    arrays = source and source.read(file if keras_model is None else keras_model)
    result = verify_tflite(
        file,
        keras_model,
        arrays and arrays.x_test,
        arrays and arrays.y_test,
        sample_weight=arrays and arrays.sample_weight_test,
        metric=scored_by,
        num_threads=num_threads,
        use_xnnpack=not no_xnnpack,
    )
    show_json(result.to_dict()) if as_json else show(result)
    if not result.passed:
        raise typer.Exit(1)
