"""`edgeprune bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.files import (
    class_names,
    load_model_file,
    named_metric,
    open_data_option,
    read_lines,
    start_tensorflow,
)
from edgeprune.cli.printing import show, show_json


def bundle_command(
    model: options.ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    target: options.TargetOption = "phone",
    data: options.OptionalDataOption = None,
    label_columns: options.LabelColumnsOption = None,
    labels: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A text file with a class name on each line.")
    ] = None,
    metric: options.MetricOption = None,
    quantization: Annotated[
        options.QuantizationChoice | None,
        typer.Option(help="How the file stores and computes numbers; by default the target's first."),
    ] = None,
    sparse: Annotated[bool, typer.Option("--sparse", help="Store weights without their zeros; for phones.")] = False,
    float_io: Annotated[bool, typer.Option("--float-io", help="An integer file has floats; for phones.")] = False,
    uint8_io: Annotated[bool, typer.Option("--uint8-io", help="An int8 file has uint8 inputs and outputs.")] = False,
    per_channel_dense: Annotated[
        bool | None,
        typer.Option(
            "--per-channel-dense/--per-tensor-dense",
            help="A scale for each unit of a dense layer, or one a layer; by default what suits the target.",
        ),
    ] = None,
    without_preprocessing: options.WithoutPreprocessingOption = False,
    mean: Annotated[
        list[float] | None, typer.Option(help="What was subtracted from raw values; one, or one for each channel.")
    ] = None,
    std: Annotated[list[float] | None, typer.Option(help="What they were divided by then.")] = None,
    name: options.NameOption = None,
    author: Annotated[str, typer.Option(help="Who made the model.")] = "",
    model_version: Annotated[str, typer.Option(help="The model's version.")] = "1",
    description: Annotated[str, typer.Option(help="What the model does.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of a bundle in the folder; others are not changed.")
    ] = False,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write a folder for a device: the model, proven on the device's runtime, and the code that calls it."""
    from edgeprune import targets as known
    from edgeprune.bundle.manifest import check_bundle_folder

    known.target(target)
    if float_io and uint8_io:
        raise ValueError("--float-io and --uint8-io exclude each other.")
    check_bundle_folder(output, [Path(path) for path in (model, data, labels) if path is not None], overwrite=overwrite)
    classes = None if labels is None else read_lines(labels)
    source, scored_by = open_data_option(data, label_columns), named_metric(metric, data)
    start_tensorflow()
    from edgeprune.bundle.bundle import export_bundle
    from edgeprune.bundle.content import Preprocessing

    keras_model = load_model_file(model, unsafe, custom)
    arrays = source and source.read(keras_model)
    result = export_bundle(
        keras_model,
        output,
        target,
        arrays and arrays.x_train,
        labels=(arrays and class_names(arrays, keras_model)) if classes is None else classes,
        validation_data=arrays and arrays.test,
        metric=scored_by,
        preprocessing=Preprocessing(tuple(mean or [0.0]), tuple(std or [1.0])) if mean or std else None,
        quantization="default" if quantization is None else None if quantization == "none" else quantization,
        sparse=sparse,
        integer_io="uint8" if uint8_io else not float_io,
        per_channel_dense=per_channel_dense,
        without_preprocessing=without_preprocessing,
        name=name,
        author=author,
        version=model_version,
        description=description,
        overwrite=overwrite,
    )
    show_json(result.to_dict()) if as_json else show(result)
