"""`edgeprune channels`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

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
from edgeprune.types import Attention, Importance, Reduction, Scope

if TYPE_CHECKING:
    from edgeprune.channels.plan.channel_plan import ChannelPlan
    from edgeprune.channels.plan.curve_scores import GroupCurves
    from edgeprune.measure.score import Scores


def _scope(scope: Scope, curves: Path | None) -> Scope | GroupCurves:
    """What ranks the groups: the scope, or the curves of a file."""
    if curves is None:
        return scope
    if scope != "global":
        raise ValueError("--curves ranks all channels together: leave --scope out.")
    from edgeprune.search.curves.curves import Sensitivity

    return Sensitivity.load(curves)


def _limits(**limits: Any) -> dict[str, Any]:
    """The limits, arguments of `plan_channels`, if there is any."""
    if all(limit is None for limit in limits.values()):
        raise ValueError(
            "Pass one or more of --pruning-ratio, --target-macs, --target-params, --target-latency, --max-ram and "
            "--max-flash."
        )
    return limits


def _figures(plan: ChannelPlan) -> dict[str, Any]:
    """A plan and what it saves, for JSON."""
    return {
        **json.loads(plan.to_json()),
        "macs": asdict(plan.macs),
        "params": asdict(plan.params),
        "channels": asdict(plan.channels),
        "limits": [asdict(limit) for limit in plan.limits],
        "latency": plan.latency and asdict(plan.latency),
    }


def channels_command(
    model: options.ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The .keras or .h5 file to write; without it the plan is only shown."),
    ] = None,
    pruning_ratio: options.PruningRatioOption = None,
    target_macs: options.TargetMacsOption = None,
    target_params: options.TargetParamsOption = None,
    target_latency: options.TargetLatencyOption = None,
    max_ram: options.MaxRamOption = None,
    max_flash: options.MaxFlashOption = None,
    target: options.TargetOption = "phone",
    quantization: options.PlannedQuantizationOption = "none",
    latency_table: Annotated[
        Path | None, typer.Option(help="Times of operators measured on the device: .csv or .json.")
    ] = None,
    num_threads: options.NumThreadsOption = 1,
    round_to: options.RoundToOption = "1",
    importance: Annotated[
        Importance,
        typer.Option(
            metavar="NAME",
            help=f"How channels are ranked: {', '.join(get_args(Importance))}. taylor and fisher need --data, "
            "activation and reconstruction --data or --reconstruct.",
        ),
    ] = "l2",
    reduction: Annotated[
        Reduction | None,
        typer.Option(help="How a channel's scores in several layers become one."),
    ] = None,
    attention: Annotated[
        Attention, typer.Option(help="What attention layers lose: heads, dims (channels inside the heads) or both.")
    ] = "heads",
    scope: Annotated[
        Scope, typer.Option(help="Rank all channels together, those of a group, or of groups of one structure.")
    ] = "global",
    curves: Annotated[
        Path | None, typer.Option(exists=True, help="Weigh groups by the curves that `sensitivity -o` wrote.")
    ] = None,
    ignore: options.IgnoreOption = None,
    min_channels: options.MinChannelsOption = 1,
    max_ratio: options.MaxRatioOption = 0.9,
    data: options.OptionalDataOption = None,
    label_columns: options.LabelColumnsOption = None,
    reconstruct: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Samples, without labels, to make up for the cut on, in any form of --data."),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=0, max=options.LARGEST, help="Passes over the data to fine-tune what is left.")
    ] = 0,
    batch_size: options.BatchSizeOption = 32,
    learning_rate: options.LearningRateOption = None,
    loss: options.LossOption = None,
    metric: options.MetricOption = None,
    seed: options.SeedOption = None,
    input_shape: options.InputShapeOption = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="Also write the plan to this .json file.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print a line for each layer that is frozen.")] = False,
    overwrite: options.OverwriteOption = False,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Remove channels, prove that the smaller model computes the same without them, and save it."""
    shape = options.parse_input_shapes(input_shape)
    check_output_paths({output: MODEL_SUFFIXES, plan: (".json",)}, overwrite)
    if epochs and data is None:
        raise ValueError("--epochs fine-tunes on data: name them with --data.")
    limits = _limits(
        pruning_ratio=pruning_ratio,
        target_macs=target_macs,
        target_params=target_params,
        target_latency=options.fraction_or_text(target_latency),
        max_ram=max_ram,
        max_flash=max_flash,
    )
    source = open_data_option(data, label_columns if data or not reconstruct else None)
    unlabelled = reconstruct and open_data_option(reconstruct, label_columns)
    scored_by, weighed_by = named_metric(metric, data), _scope(scope, curves)
    start_tensorflow()
    from edgeprune.channels.plan.planning import plan_channels
    from edgeprune.fit import check_and_compile, fine_tune
    from edgeprune.measure.score import score_lines, scores_to_dict

    keras_model = load_model_file(model, unsafe, custom, seed)
    arrays = source and (training_data(source, keras_model) if epochs else source.read(keras_model))
    if arrays is not None and arrays.y_train is not None and (epochs or loss):
        check_and_compile(keras_model, arrays.x_train, arrays.y_train, loss)
    samples = unlabelled.read(keras_model).x_train if unlabelled else None
    chosen = plan_channels(
        keras_model,
        **limits,
        target=target,
        quantization=None if quantization == "none" else quantization,
        latency_table=latency_table,
        num_threads=num_threads,
        importance=importance,
        reduction=reduction,
        attention=attention,
        scope=weighed_by,
        round_to=options.rounding(round_to),
        ignore=ignore or (),
        min_channels=min_channels,
        max_ratio=max_ratio,
        data=arrays.train if arrays else samples,
        loss=loss,
        input_shape=shape,
    )
    smaller = chosen.apply()
    scores: dict[str, Scores] = {}
    if arrays is not None:
        scored = scorer(arrays, scored_by, keras_model)
        scores |= {"before": scored(keras_model), "cut": scored(smaller)}
    found = None if samples is None else chosen.reconstruct(samples, verify=False)
    if found is not None:
        smaller = found.model
        scores |= {"reconstructed": scored(smaller)} if arrays is not None else {}
    if epochs and arrays is not None:
        fine_tune(
            smaller,
            arrays.x_train,
            arrays.y_train,
            sample_weight=arrays.sample_weight_train,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            loss=loss,
            metric=scored_by if scores["before"] else None,
        )
        scores["fine-tuned"] = scored(smaller)
    writers: dict[Path | None, Callable[[Path], Any]] = {
        output: partial(save_model, smaller),
        plan: lambda path: path.write_text(chosen.to_json(), encoding="utf-8"),
    }
    write_files({path: write for path, write in writers.items() if path is not None}, overwrite)
    if as_json:
        show_json(
            {
                **_figures(chosen),
                **scores_to_dict(scores),
                "reconstruction": found and found.to_dict(),
                "held_out": arrays and arrays.held_out,
                "output": output and str(output),
            }
        )
        return
    show(chosen.to_text(verbose=verbose, see="--verbose"))
    if found is not None:
        show(str(found))
    for line in score_lines(scores):
        show(line)
    if epochs and arrays is not None:
        show(measured_on(arrays))
    show("nothing written: name a file with -o" if output is None else f"wrote {output}")
