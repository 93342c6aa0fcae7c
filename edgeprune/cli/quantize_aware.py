"""`edgeprune quantize-aware`."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgeprune.cli import options
from edgeprune.cli.files import (
    MODEL_SUFFIXES,
    TFLITE_SUFFIX,
    check_output_paths,
    load_model_file,
    measured_on,
    named_metric,
    open_data_option,
    save_model,
    scorer,
    start_tensorflow,
    training_data,
    write_files,
)
from edgeprune.cli.printing import show, show_json
from edgeprune.types import Model

if TYPE_CHECKING:
    from edgeprune.data import Data
    from edgeprune.export.convert import ExportResult

TrainedScheme = Literal["int8", "int4", "int16x8"]


def quantize_aware_command(
    model: options.ModelArgument,
    data: options.DataOption,
    output: Annotated[
        list[Path],
        typer.Option(
            "--output",
            "-o",
            help="The .tflite file to write, or a .keras or .h5 file of the trained model; repeatable.",
        ),
    ],
    label_columns: options.LabelColumnsOption = None,
    scheme: Annotated[
        TrainedScheme, typer.Option(help="Bits of weights and activations: 8 and 8, 4 and 8, or 8 and 16.")
    ] = "int8",
    epochs: Annotated[int, typer.Option(min=1, max=options.LARGEST, help="Passes over the data.")] = 2,
    distill: Annotated[
        bool, typer.Option("--distill", help="Train after the outputs of the model as it was, besides the labels.")
    ] = False,
    strip: Annotated[
        bool, typer.Option("--strip", help="A .keras or .h5 file holds the float model with the trained weights.")
    ] = False,
    batch_size: options.BatchSizeOption = 32,
    learning_rate: options.LearningRateOption = None,
    loss: options.LossOption = None,
    metric: options.MetricOption = None,
    seed: options.SeedOption = None,
    layers: Annotated[
        list[str] | None, typer.Option(help="Name pattern of the layers to quantize; may be repeated.")
    ] = None,
    ignore: options.IgnoreOption = None,
    overwrite: options.OverwriteOption = False,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train a model for the rounding of an integer file, and write the file."""
    check_output_paths({path: (TFLITE_SUFFIX, *MODEL_SUFFIXES) for path in output}, overwrite)
    source, scored_by = open_data_option(data, label_columns), named_metric(metric, data)
    start_tensorflow()
    from edgeprune.fit import check_and_compile, fine_tune
    from edgeprune.fit import distill as train_after
    from edgeprune.measure.score import score_lines, scores_to_dict
    from edgeprune.quantization.report import quantization_report
    from edgeprune.quantization.training import quantize_aware
    from edgeprune.strip import strip_quantization

    keras_model = load_model_file(model, unsafe, custom, seed)
    assert source is not None, "--data is required"
    arrays = training_data(source, keras_model)
    check_and_compile(keras_model, arrays.x_train, arrays.y_train, loss)
    scored = scorer(arrays, scored_by, keras_model)
    scores = {"before": scored(keras_model)}
    aware = quantize_aware(
        keras_model, scheme, calibration=arrays.x_train, layers=layers or None, ignore=ignore or None
    )
    training: dict[str, Any] = {
        "sample_weight": arrays.sample_weight_train,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "loss": loss,
        "metric": scored_by if scores["before"] else None,
        "description": "Training for quantization",
    }
    if distill:
        train_after(aware, keras_model, arrays.x_train, arrays.y_train, **training)
    else:
        fine_tune(aware, arrays.x_train, arrays.y_train, **training)
    scores["trained"] = scored(aware)
    report = quantization_report(aware)
    kept = strip_quantization(aware) if strip else aware
    exported: dict[Path, ExportResult] = {}
    is_file = {path: path.suffix == TFLITE_SUFFIX for path in output}
    write_files(
        {
            path: partial(_export, aware, scheme, arrays, path, exported)
            if is_file[path]
            else partial(save_model, kept)
            for path in output
        },
        overwrite,
    )
    if exported:
        scores["file"] = scored(next(iter(exported)))
    if as_json:
        show_json(
            {
                **dataclasses.asdict(report),
                **scores_to_dict(scores),
                "files": [one.to_dict() for one in exported.values()],
                "held_out": arrays.held_out,
                "output": [str(path) for path in output],
            }
        )
        return
    show(report)
    for result in exported.values():
        show(result)
    for line in score_lines(scores):
        show(line)
    show(measured_on(arrays))
    for path in output:
        show(f"wrote {path}")


def _export(
    model: Model, scheme: TrainedScheme, arrays: Data, path: Path, exported: dict[Path, ExportResult], unfinished: Path
) -> None:
    """Write the file under the name it has until all are there; the result is of its own name."""
    from edgeprune.export.convert import export_tflite

    result = export_tflite(model, unfinished, scheme, arrays.x_train, overwrite=True)
    exported[path] = dataclasses.replace(
        result, path=path, verification=result.verification and dataclasses.replace(result.verification, path=path)
    )
