"""`edgeprune prune`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.files import (
    MODEL_SUFFIXES,
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
from edgeprune.cli.options import (
    LARGEST,
    BatchSizeOption,
    CustomOption,
    DataOption,
    JsonOption,
    LabelColumnsOption,
    LearningRateOption,
    LossOption,
    MetricOption,
    OverwriteOption,
    ScheduleChoice,
    SeedOption,
    SparsityOption,
    UnsafeOption,
)
from edgeprune.cli.printing import show, show_json


def prune_command(
    model: Annotated[Path, typer.Argument(exists=True, help="A trained .keras or .h5 file, or a SavedModel folder.")],
    data: DataOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .keras or .h5 file to write.")],
    label_columns: LabelColumnsOption = None,
    sparsity: SparsityOption = 0.8,
    epochs: Annotated[int, typer.Option(min=1, max=LARGEST, help="Passes over the data.")] = 2,
    schedule: Annotated[
        ScheduleChoice, typer.Option(help="How sparsity grows: step by step, or at once.")
    ] = "polynomial",
    frequency: Annotated[int, typer.Option(min=1, max=LARGEST, help="Steps between updates of the masks.")] = 100,
    batch_size: BatchSizeOption = 32,
    learning_rate: LearningRateOption = None,
    loss: LossOption = None,
    metric: MetricOption = None,
    seed: SeedOption = None,
    layers: Annotated[
        list[str] | None, typer.Option(help="Name pattern of the layers to prune; may be repeated.")
    ] = None,
    overwrite: OverwriteOption = False,
    unsafe: UnsafeOption = False,
    custom: CustomOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prune a trained model while it trains on, and save it without wrappers."""
    check_output_paths({output: MODEL_SUFFIXES}, overwrite)
    source, scored_by = open_data_option(data, label_columns), named_metric(metric, data)
    start_tensorflow()
    from edgeprune.fit import check_and_compile, prune_and_fit
    from edgeprune.measure.score import score_lines, scores_to_dict
    from edgeprune.sparsity.report import sparsity_report

    keras_model = load_model_file(model, unsafe, custom, seed)
    assert source is not None, "--data is required"
    arrays = training_data(source, keras_model)
    check_and_compile(keras_model, arrays.x_train, arrays.y_train, loss)
    scored = scorer(arrays, scored_by, keras_model)
    scores = {"before": scored(keras_model)}
    pruned = prune_and_fit(
        keras_model,
        arrays.x_train,
        arrays.y_train,
        sample_weight=arrays.sample_weight_train,
        sparsity=sparsity,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        frequency=frequency,
        layers=layers or None,
        loss=loss,
        metric=scored_by if scores["before"] else None,
    )
    scores["after"] = scored(pruned)
    report = sparsity_report(pruned)
    write_files({output: partial(save_model, pruned)}, overwrite)
    if as_json:
        show_json({**report.to_dict(), **scores_to_dict(scores), "held_out": arrays.held_out, "output": str(output)})
        return
    show(report)
    for line in score_lines(scores):
        show(line)
    show(measured_on(arrays))
    show(f"wrote {output}")
