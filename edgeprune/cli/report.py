"""`edgeprune report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli import options
from edgeprune.cli.files import (
    check_output_paths,
    class_names,
    load_model_file,
    measured_on,
    named_metric,
    open_data_option,
    start_tensorflow,
)
from edgeprune.cli.printing import show
from edgeprune.types import Model

if TYPE_CHECKING:
    from edgeprune.data import DataSource


def report_command(
    model: Annotated[
        Path,
        typer.Argument(
            exists=True, help="A .keras or .h5 file, or a SavedModel folder; or the folder of a search by compress."
        ),
    ],
    files: Annotated[
        list[Path] | None,
        typer.Argument(exists=True, dir_okay=False, help="The .tflite files; times are relative to the first."),
    ] = None,
    data: options.OptionalDataOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .html file to write.")] = Path("report.html"),
    label_columns: options.LabelColumnsOption = None,
    original: Annotated[
        Path | None,
        typer.Option(
            "--model", exists=True, help="Of a search: the original, where not that in its folder is to be measured."
        ),
    ] = None,
    converted_from: Annotated[
        Path | None,
        typer.Option(exists=True, help="The model that the files were converted from, where it is a smaller one."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(autocompletion=options.target_names, help="The device whose memories the files are held against."),
    ] = None,
    max_accuracy_drop: Annotated[
        str | None, typer.Option("--max-drop", help="How much worse the score may be: 1% or 0.01, in its own unit.")
    ] = None,
    max_flash: Annotated[str | None, typer.Option(help="A limit on flash for file and code: 256 KiB.")] = None,
    max_ram: Annotated[str | None, typer.Option(help="A limit on RAM for the arena: 64 KiB.")] = None,
    max_latency_ms: Annotated[str | None, typer.Option("--max-latency", help="Time of one run: 20 ms.")] = None,
    max_size: Annotated[str | None, typer.Option(help="The file's size: 256 KiB.")] = None,
    max_gzip_size: Annotated[str | None, typer.Option(help="The file's size after gzip: 100 KiB.")] = None,
    metric: options.MetricOption = None,
    num_samples: Annotated[int, typer.Option(min=1, help="How many samples layers are compared on at most.")] = 50,
    num_runs: Annotated[int, typer.Option(min=1, max=options.LARGEST, help="Timed runs of each file.")] = 50,
    overwrite: options.OverwriteOption = False,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
) -> None:
    """Write an HTML report on .tflite files beside their model, or on a search: scores, costs, errors, widths."""
    from edgeprune.search.budget import device_and_budget
    from edgeprune.search.journal.search_record import TRIALS

    check_output_paths({output: (".html",)}, overwrite)
    limits: dict[str, Any] = {
        "max_accuracy_drop": max_accuracy_drop,
        "max_flash": max_flash,
        "max_ram": max_ram,
        "max_latency_ms": max_latency_ms,
        "max_size": max_size,
        "max_gzip_size": max_gzip_size,
    }
    device, _ = device_and_budget(target, *limits.values())
    is_search = model.suffix == ".jsonl" or (model / TRIALS).is_file()
    if is_search and (files or target or any(limits.values())):
        raise ValueError(f"{model} is a search, with files, a target and limits of its own: leave them out.")
    if is_search and (original is None) != (data is None):
        raise ValueError("The chosen file is measured beside its model on data: pass both --model and --data.")
    if not is_search and not files:
        raise ValueError(f"Name one or more .tflite files after {model}, or the folder of a search.")
    if not is_search and original is not None:
        raise ValueError(f"--model is the original of a search; here {model} is the model.")
    if not is_search and data is None:
        raise ValueError("Files are measured on data: pass --data.")
    source = open_data_option(data, label_columns)
    scored_by = named_metric(metric, str(model) if is_search else data)  # a search keeps data of its own
    start_tensorflow()
    shared: dict[str, Any] = {"metric": scored_by, "num_samples": num_samples, "num_runs": num_runs}
    shared["overwrite"] = overwrite
    if converted_from is not None:
        shared["converted_from"] = load_model_file(converted_from, unsafe, custom)
    if is_search:
        from edgeprune.flavor.custom_objects import custom_objects_of
        from edgeprune.report.search_report import write_search_report

        note = ""
        if original is not None and source is not None:
            shared["model"] = load_model_file(original, unsafe, custom)
            note = _with_samples(shared, source, shared["model"])
        else:
            custom_objects_of(custom or ())  # which registers the classes that the models in the folder need
        write_search_report(model, output, **shared)
    else:
        from edgeprune.report.model_report import write_report

        assert source is not None, "--data was passed"
        keras_model = load_model_file(model, unsafe, custom)
        note = _with_samples(shared, source, keras_model)
        write_report(keras_model, files or [], path=output, target=device, **limits, **shared)
    show(f"report: {output}\n{note}".rstrip())


def _with_samples(arguments: dict[str, Any], source: DataSource, model: Model) -> str:
    """Add the samples and their classes to the arguments, and say which samples they are."""
    samples = source.read(model)
    arguments |= {"data": samples.test, "class_names": class_names(samples, model)}
    return measured_on(samples)
