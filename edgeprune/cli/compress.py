"""`edgeprune compress`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

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
        Path, typer.Option("--output", "-o", help="The folder for the file, its bundle and recipe, and the trials.")
    ],
    test_data: Annotated[
        str | None,
        typer.Option(
            help="Samples that the verdict alone is on, in any form of --data.  [default: half of the test data]"
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A YAML or JSON file of settings; options override it."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            autocompletion=options.target_names,
            help="The device; `edgeprune targets` lists them.  [default: phone]",
        ),
    ] = None,
    max_accuracy_drop: Annotated[
        str | None,
        typer.Option("--max-drop", help="How much worse the metric may be: 1% or 0.01, in its own unit."),
    ] = None,
    max_flash: Annotated[str | None, typer.Option(help="Flash for file and code: 256 KiB.")] = None,
    max_ram: Annotated[str | None, typer.Option(help="RAM for the arena: 64 KiB.")] = None,
    max_latency_ms: Annotated[str | None, typer.Option("--max-latency", help="Time of one run: 20 ms.")] = None,
    max_size: Annotated[str | None, typer.Option(help="The file's size: 256 KiB.")] = None,
    max_gzip_size: Annotated[str | None, typer.Option(help="The file's size after gzip: 100 KiB.")] = None,
    label_columns: options.LabelColumnsOption = None,
    metric: options.MetricOption = None,
    quantization: options.SearchQuantizationOption = None,
    search: Annotated[
        Literal["guided", "tpe", "nsga2"] | None, typer.Option(help="How candidates are chosen.  [default: guided]")
    ] = None,
    engine: Annotated[
        Literal["local", "ray"] | None, typer.Option(help="Where trials are made.  [default: local]")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster that runs, such as auto.")] = None,
    num_workers: Annotated[
        int | None, typer.Option(min=1, max=options.LARGEST, help="Trials at once with Ray.  [default: 2]")
    ] = None,
    cpus_per_trial: Annotated[
        float | None, typer.Option(callback=options.positive, help="Processors for each trial with Ray.  [default: 1]")
    ] = None,
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(callback=options.not_negative, help="GPUs for each trial with Ray; 0.5 shares one.  [default: 0]"),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=options.LARGEST,
            help="Passes over the training data for each finalist; 0 trains nothing.  [default: 3]",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=options.LARGEST, help="Samples per step.  [default: 32]")
    ] = None,
    learning_rate: options.LearningRateOption = None,
    num_trials: Annotated[
        int | None, typer.Option(min=1, max=options.LARGEST, help="Models judged without training.  [default: 24]")
    ] = None,
    num_finalists: Annotated[
        int | None, typer.Option(min=1, max=options.LARGEST, help="Models trained and measured.  [default: 3]")
    ] = None,
    time_budget: Annotated[
        float | None, typer.Option(callback=options.positive, help="Seconds for all trials.")
    ] = None,
    bundle: Annotated[
        bool | None, typer.Option("--bundle/--no-bundle", help="Write the bundle for the target.  [default: bundle]")
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(help="Where trials are logged: csv, tensorboard, mlflow, wandb; repeatable.  [default: csv]"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Seed of all that is drawn.  [default: 0]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a search that was stopped.")] = False,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Find a smaller model that holds a budget, and prove its file; exit code 3 where none does."""
    asked = {
        "target": target,
        "max_accuracy_drop": max_accuracy_drop,
        "max_flash": max_flash,
        "max_ram": max_ram,
        "max_latency_ms": max_latency_ms,
        "max_size": max_size,
        "max_gzip_size": max_gzip_size,
        "quantization": _quantization(quantization),
        "search": search,
        "engine": engine,
        "address": address,
        "num_workers": num_workers,
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "num_trials": num_trials,
        "num_finalists": num_finalists,
        "time_budget": time_budget,
        "bundle": bundle,
        "log": log,
        "seed": seed,
    }
    settings = _settings(recipe, {name: value for name, value in asked.items() if value not in (None, [])})
    source, test_source = open_data_option(data, label_columns), open_data_option(test_data, label_columns)
    scored_by = named_metric(metric or settings.pop("metric", None), data)
    if settings.get("quantization") == "none":
        settings["quantization"] = None
    start_tensorflow()
    from edgeprune.search.compress import compress

    keras_model = load_model_file(model, unsafe, custom, settings.get("seed", 0))
    assert source is not None, "--data is required"
    samples = source.read(keras_model)
    test = None if test_source is None else test_source.read(keras_model).test
    held_out = samples.held_out or test is not None
    is_training = settings.get("epochs", 1) > 0
    try:
        result = compress(
            keras_model,
            samples.train if is_training else None,
            samples.test,
            test,
            metric=scored_by,
            output_dir=output,
            resume=resume,
            **settings,
        )
    except (KeyboardInterrupt, SystemExit):
        print(f"note: what was tried is kept in {output}: --resume continues.", file=sys.stderr)
        raise
    if as_json:
        show_json({**result.to_dict(), "held_out": held_out})
    else:
        show(result)
        if not held_out and is_training:
            show(f"note: {samples.source} has no test samples: the verdict is on samples that were trained on")
    if not result.accepted:
        raise typer.Exit(NOT_ACCEPTED)


def _quantization(names: list[str] | None) -> str | list[str | None] | None:
    """One way to quantize, or several, as `compress` accepts them; `"none"` alone, which no default hides."""
    if not names:
        return None
    return names[0] if len(names) == 1 else [None if name == "none" else name for name in names]


def _settings(recipe: Path | None, asked: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe, with those that were asked for in their place; limits are checked at once."""
    from edgeprune.search.budget import Budget
    from edgeprune.search.recipe import read_settings

    settings = {**({} if recipe is None else read_settings(recipe)), **asked}
    Budget(**{name: value for name, value in settings.items() if name.startswith("max_")})
    return settings
