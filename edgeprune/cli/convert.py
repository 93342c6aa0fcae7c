"""`edgeprune convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.files import TFLITE_SUFFIX, check_output_paths, load_model_file, open_data_option, start_tensorflow
from edgeprune.cli.printing import show, show_json
from edgeprune.types import Calibration


def convert_command(
    model: options.ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .tflite file to write.")],
    quantization: options.FileQuantizationOption = "none",
    data: options.OptionalDataOption = None,
    calibration: Annotated[
        Calibration, typer.Option(help="How an int8 or int4 file is calibrated; auto measures and keeps the best.")
    ] = "auto",
    label_columns: options.LabelColumnsOption = None,
    sparse: Annotated[bool, typer.Option("--sparse", help="Store weights without their zeros.")] = False,
    float_io: Annotated[bool, typer.Option("--float-io", help="An integer file has float inputs and outputs.")] = False,
    uint8_io: Annotated[bool, typer.Option("--uint8-io", help="An int8 file has uint8 inputs and outputs.")] = False,
    per_tensor_dense: Annotated[
        bool, typer.Option("--per-tensor-dense", help="One scale for a dense layer: less RAM on microcontrollers.")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(
            autocompletion=options.target_names,
            help="The device: weights of 4 bits that it does not read so have 8. `edgeprune targets` lists them.",
        ),
    ] = None,
    without_preprocessing: options.WithoutPreprocessingOption = False,
    overwrite: options.OverwriteOption = False,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Convert a model to a .tflite file, run the file, and compare it with the model."""
    check_output_paths({output: (TFLITE_SUFFIX,)}, overwrite)
    if float_io and uint8_io:
        raise ValueError("--float-io and --uint8-io exclude each other.")
    source = open_data_option(data, label_columns)
    start_tensorflow()
    from edgeprune.export.convert import export_tflite

    keras_model = load_model_file(model, unsafe, custom)
    result = export_tflite(
        keras_model,
        output,
        None if quantization == "none" else quantization,
        source and source.read(keras_model).x_train,
        calibration=calibration,
        sparse=sparse,
        integer_io="uint8" if uint8_io else not float_io,
        per_channel_dense=not per_tensor_dense,
        target=target,
        without_preprocessing=without_preprocessing,
        overwrite=overwrite,
    )
    show_json(result.to_dict()) if as_json else show(result)
