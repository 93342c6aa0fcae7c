"""`edgeprune debug`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.files import load_model_file, start_tensorflow
from edgeprune.cli.printing import show, show_json


def debug_command(
    model: Annotated[Path, typer.Argument(exists=True, help="The Keras model that the file was converted from.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .tflite file.")],
    data: options.DataOption,
    label_columns: options.LabelColumnsOption = None,
    num_samples: Annotated[int, typer.Option(min=1, help="How many samples to compare at most.")] = 50,
    own: Annotated[bool, typer.Option("--own", help="Run each layer alone too, on Keras's values before it.")] = False,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Compare a .tflite file with its Keras model layer by layer, and name the layer that breaks first."""
    from edgeprune.data import open_data

    source = open_data(data, label_columns or ())
    start_tensorflow()
    from edgeprune.report.file_errors import quantization_error

    keras_model = load_model_file(model, unsafe, custom)
    report = quantization_error(keras_model, file, source.read(keras_model).x_test, num_samples=num_samples, own=own)
    show_json(report.to_dict()) if as_json else show(report)
