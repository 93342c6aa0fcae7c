"""`edgeprune compress`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.files import load_model_file, named_metric, open_data_option, start_tensorflow
from edgeprune.cli.printing import show, show_json

# What the command ends with where no model holds the budget: not an error, and not a success either.
NOT_ACCEPTED = 3


def compress_command(
    model: options.ModelArgument,
    data: options.DataOption,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder for the file, the trials and their journal.")
    ],
    target: options.TargetOption = "phone",
    max_accuracy_drop: Annotated[
        str | None,
        typer.Option("--max-drop", help="How much worse the metric may be: 1% or 0.01, in its own unit."),
    ] = None,
    max_flash: Annotated[str | None, typer.Option(help="Flash for file and code: 256 KiB.")] = None,
    max_ram: Annotated[str | None, typer.Option(help="RAM for the arena: 64 KiB.")] = None,
    max_latency_ms: Annotated[str | None, typer.Option("--max-latency", help="Time of one run: 20 ms.")] = None,
    max_size: Annotated[str | None, typer.Option(help="The file's size: 256 KiB.")] = None,
    label_columns: options.LabelColumnsOption = None,
    metric: options.MetricOption = None,
    quantization: options.FileQuantizationOption = "int8",
    epochs: Annotated[
        int,
        typer.Option(
            min=0, max=options.LARGEST, help="Passes over the training data for each finalist; 0 trains nothing."
        ),
    ] = 3,
    batch_size: options.BatchSizeOption = 32,
    learning_rate: options.LearningRateOption = None,
    num_trials: Annotated[int, typer.Option(min=1, max=options.LARGEST, help="Models judged without training.")] = 8,
    num_finalists: Annotated[int, typer.Option(min=1, max=options.LARGEST, help="Models trained and measured.")] = 3,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all that is drawn.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a search that was stopped.")] = False,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Find a smaller model that holds a budget, and prove its file; exit code 3 where none does."""
    from edgeprune.search.budget import Budget

    Budget(max_accuracy_drop, max_flash, max_ram, max_latency_ms, max_size)
    source, scored_by = open_data_option(data, label_columns), named_metric(metric, data)
    start_tensorflow()
    from edgeprune.search.compress import compress

    keras_model = load_model_file(model, unsafe, custom, seed)
    assert source is not None, "--data is required"
    samples = source.read(keras_model)
    result = compress(
        keras_model,
        samples.train if epochs else None,
        samples.test,
        target=target,
        max_accuracy_drop=max_accuracy_drop,
        max_flash=max_flash,
        max_ram=max_ram,
        max_latency_ms=max_latency_ms,
        max_size=max_size,
        metric=scored_by,
        quantization=None if quantization == "none" else quantization,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        num_trials=num_trials,
        num_finalists=num_finalists,
        output_dir=output,
        resume=resume,
        seed=seed,
    )
    if as_json:
        show_json({**result.to_dict(), "held_out": samples.held_out})
    else:
        show(result)
        if not samples.held_out and epochs:
            show(f"note: {samples.source} has no test samples: the verdict is on samples that were trained on")
    if not result.accepted:
        raise typer.Exit(NOT_ACCEPTED)
