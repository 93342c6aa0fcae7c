"""`edgeprune sensitivity`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from edgeprune.cli import options
from edgeprune.cli.files import (
    check_output_paths,
    load_model_file,
    named_metric,
    open_data_option,
    start_tensorflow,
    write_files,
)
from edgeprune.cli.printing import show, show_json
from edgeprune.types import Importance

if TYPE_CHECKING:
    from edgeprune.data import DataSource
    from edgeprune.search.curves.curves import Sensitivity


def sensitivity_command(
    model: options.ModelArgument,
    data: options.DataOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the curves to this .json file.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Also write a plot to this .png, .svg or .pdf file.")] = None,
    kind: Annotated[
        Literal["channels", "weights"], typer.Option(help="Prune groups of coupled channels, or each layer's weights.")
    ] = "channels",
    levels: options.LevelsOption = None,
    importance: Annotated[
        Importance, typer.Option(metavar="NAME", help=f"How channels are ranked: {', '.join(get_args(Importance))}.")
    ] = "l2",
    reconstruct: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Samples, without labels, on which layers that lost inputs or weights are solved again.",
        ),
    ] = None,
    max_drop: options.MaxDropOption = 0.1,
    num_samples: Annotated[int, typer.Option(min=1, max=options.LARGEST, help="Samples to use of each data.")] = 1000,
    ignore: options.IgnoreOption = None,
    label_columns: options.LabelColumnsOption = None,
    metric: options.MetricOption = None,
    batch_size: options.BatchSizeOption = 32,
    cache: Annotated[
        Path | None,
        typer.Option(help="A file that keeps each measurement, from which a stopped run continues; with -o beside it."),
    ] = None,
    overwrite: options.OverwriteOption = False,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Prune each group of channels, or each layer's weights, alone, and show how much worse the model gets."""
    check_output_paths({output: (".json",), plot: (".png", ".svg", ".pdf")}, overwrite)
    from edgeprune import data as forms

    source, solved_on = forms.open_data(data, label_columns or ()), _open_unlabelled(reconstruct)
    scored_by = named_metric(metric, data)
    start_tensorflow()
    from edgeprune.search.curves.sensitivity import LEVELS, sensitivity

    keras_model = load_model_file(model, unsafe, custom)
    scored, solved = source.read(keras_model), solved_on and solved_on.read(keras_model)
    journal = cache or (output and output.with_name(f"{output.name}.unfinished"))
    curves = sensitivity(
        keras_model,
        _some_of((scored.x_test, scored.y_test, scored.sample_weight_test), num_samples),
        metric=scored_by,
        kind=kind,
        levels=levels or LEVELS,
        importance=importance,
        ignore=ignore or (),
        reconstruct=solved and _some_of((solved.x_train, None, None), num_samples),
        batch_size=batch_size,
        cache=journal,
    )
    content = {**curves.to_dict(), "collapse": curves.collapse(max_drop)}
    writers: dict[Path | None, Callable[[Path], Any]] = {
        output: lambda path: path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"),
        plot: lambda path: _save_plot(curves, max_drop, path),
    }
    write_files({path: write for path, write in writers.items() if path is not None}, overwrite)
    if journal is not None and cache is None:
        journal.unlink(missing_ok=True)
    if as_json:
        show_json(content)
        return
    show(curves.to_text(max_drop))
    for path in filter(None, (output, plot)):
        show(f"wrote {path}")


def _save_plot(curves: Sensitivity, max_drop: float, path: Path) -> None:
    figure = curves.plot(max_drop=max_drop).get_figure(root=True)
    if figure is not None:
        figure.savefig(path)


def _open_unlabelled(data: str | None) -> DataSource | None:
    try:
        return open_data_option(data)
    except (ValueError, OSError, ImportError) as error:
        raise ValueError(f"--reconstruct: {error}") from error


def _some_of(parts: tuple[Any, Any, Any], num_samples: int) -> Any:
    """Samples, labels and weights of as many samples, evenly from all: files are often in the order of the classes."""
    import numpy as np

    from edgeprune.data.batches import first_array
    from edgeprune.data.structures import mapped

    count = len(first_array(parts[0]))
    chosen = np.linspace(0, count - 1, min(count, num_samples)).astype(int)
    x, y, sample_weight = (mapped(lambda array: np.asarray(array)[chosen], part) for part in parts)
    return x if y is None else (x, y) if sample_weight is None else (x, y, sample_weight)
