"""`edgeprune prune`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli import options
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
from edgeprune.cli.printing import show, show_json
from edgeprune.types import Arrays

if TYPE_CHECKING:
    from edgeprune.channels.reconstruct.report import Reconstruction


_SAMPLES = 1000  # of the data that --one-shot solves the weights on: more gain little


def _some(x: Arrays, seed: int) -> Any:
    """Some of the samples, chosen at random: a folder of images has one class after the other."""
    import numpy as np

    from edgeprune.data.structures import flat, mapped

    count = len(np.asarray(next(flat(x))))
    if count <= _SAMPLES:
        return x
    chosen = np.sort(np.random.default_rng(seed).choice(count, _SAMPLES, replace=False))
    return mapped(lambda array: np.asarray(array)[chosen], x)


def _m_by_n(text: str | None) -> tuple[int, int] | None:
    """What `2:4` stands for."""
    if text is None:
        return None
    zeros, _, group = text.partition(":")
    if not (zeros.isdecimal() and group.isdecimal()):
        raise ValueError(f"--sparsity-m-by-n accepts M:N, such as 2:4; got {text!r}.")
    return int(zeros), int(group)


def prune_command(
    model: Annotated[Path, typer.Argument(exists=True, help="A trained .keras or .h5 file, or a SavedModel folder.")],
    data: options.DataOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .keras or .h5 file to write.")],
    label_columns: options.LabelColumnsOption = None,
    sparsity: options.SparsityOption = 0.8,
    one_shot: Annotated[
        bool,
        typer.Option(
            "--one-shot",
            help="Without training or labels: the kept weights are solved on the data to make up for it.",
        ),
    ] = False,
    sparsity_m_by_n: Annotated[
        str | None,
        typer.Option(
            metavar="M:N", help="With --one-shot, M zeros in every N weights, as in 2:4, instead of --sparsity."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, max=options.LARGEST, help="Passes over the data.")] = 2,
    schedule: Annotated[
        options.ScheduleChoice, typer.Option(help="How sparsity grows: step by step, or at once.")
    ] = "polynomial",
    frequency: Annotated[
        int, typer.Option(min=1, max=options.LARGEST, help="Steps between updates of the masks.")
    ] = 100,
    batch_size: options.BatchSizeOption = 32,
    learning_rate: options.LearningRateOption = None,
    loss: options.LossOption = None,
    metric: options.MetricOption = None,
    seed: options.SeedOption = None,
    layers: Annotated[
        list[str] | None, typer.Option(help="Name pattern of the layers to prune; may be repeated.")
    ] = None,
    overwrite: options.OverwriteOption = False,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Prune a trained model, while it trains on or in one shot, and save it without wrappers."""
    check_output_paths({output: MODEL_SUFFIXES}, overwrite)
    m_by_n = _m_by_n(sparsity_m_by_n)
    if m_by_n and not one_shot:
        raise ValueError("--sparsity-m-by-n is for --one-shot: pass both.")
    source, scored_by = open_data_option(data, label_columns), named_metric(metric, data)
    start_tensorflow()
    from edgeprune.fit import check_and_compile, prune_and_fit
    from edgeprune.measure.score import score_lines, scores_to_dict
    from edgeprune.one_shot.planning import plan_weights
    from edgeprune.sparsity.report import sparsity_report

    keras_model = load_model_file(model, unsafe, custom, seed)
    assert source is not None, "--data is required"
    arrays = source.read(keras_model) if one_shot else training_data(source, keras_model)
    if arrays.y_train is not None and (loss or not one_shot):
        check_and_compile(keras_model, arrays.x_train, arrays.y_train, loss)
    scored = scorer(arrays, scored_by, keras_model)
    scores = {"before": scored(keras_model)}
    found: Reconstruction | None = None
    if one_shot:
        plan = plan_weights(keras_model, None if m_by_n else sparsity, sparsity_m_by_n=m_by_n, layers=layers or None)
        found = plan.reconstruct(_some(arrays.x_train, seed or 0), batch_size=batch_size, seed=seed or 0)
        pruned = found.model
    else:
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
        errors = {"error": {"before": found.before, "after": found.after}} if found else {}
        show_json(
            {**report.to_dict(), **errors, **scores_to_dict(scores), "held_out": arrays.held_out, "output": str(output)}
        )
        return
    show(report)
    if found:
        show(found)
    for line in score_lines(scores):
        show(line)
    show(measured_on(arrays))
    show(f"wrote {output}")
