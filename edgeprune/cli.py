"""The `edgeprune` command: parse, call the library, print.

Figures go to stdout, as tables or with `--json` as JSON; progress and errors go to stderr. What is wrong with the
input is told in one line, with exit code 2.
"""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from edgeprune import __version__

if TYPE_CHECKING:
    from rich.table import Table

    from edgeprune.datasets import Arrays

# What the library raises for bad input. Anything else is a bug and keeps its traceback.
USER_ERRORS = (ValueError, TypeError, OSError, ImportError)
MODEL_SUFFIXES = (".keras", ".h5")
TFLITE_SUFFIX = ".tflite"
FORMATS = ("none", "dynamic", "float16", "int8", "int16x8")


class _OneLineErrors(TyperGroup):
    """Tells what is wrong with the input in one line on stderr, and exits with code 2."""

    def main(self, *args: Any, **options: Any) -> None:
        """Run the command line and exit."""
        options["standalone_mode"] = False
        try:
            code = super().main(*args, **options)
        except USER_ERRORS as error:
            if os.environ.get("EDGEPRUNE_DEBUG"):
                raise
            hint = " --force replaces it." if isinstance(error, FileExistsError) else ""
            _fail(f"{error or type(error).__name__}{hint}")
        except Exception as error:
            # What the parser itself complains of: an unknown option, a missing argument.
            if not hasattr(error, "format_message"):
                raise
            _fail(error.format_message())
        sys.exit(code or 0)


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


app = typer.Typer(
    cls=_OneLineErrors,
    help="Prune a Keras model, convert it to TFLite, and verify the file that was written.",
    epilog="EDGEPRUNE_DEBUG=1 in the environment shows the traceback of an error.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
Threads = Annotated[int, typer.Option(help="Threads for the interpreter.")]
NoXnnpack = Annotated[bool, typer.Option("--no-xnnpack", help="Run without the XNNPACK delegate.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"edgeprune {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())
    else:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path("tflite_out"),
    flavor: Annotated[str, typer.Option(help="keras or tf_keras.")] = "keras",
    sparsity: Annotated[float, typer.Option(help="Fraction of zeros to prune to.")] = 0.8,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data, dense and pruning alike; fewer are faster.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and order.")] = 1,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train, prune, convert, verify and time a small net on images inside the package."""
    from edgeprune.atomic import check_parents
    from edgeprune.demo import Recipe, run_demo
    from edgeprune.report.tables import formats_table, summary

    passes = {} if epochs is None else {"dense_epochs": epochs, "pruned_epochs": epochs}
    recipe = Recipe(flavor=flavor, sparsity=sparsity, seed=seed, **passes)
    check_parents(output / "results.json")
    _start_tensorflow()
    result = run_demo(output, recipe, overwrite=force)
    if as_json:
        _print_json(result.to_dict())
        return
    _print_table(formats_table(result.rows, f"ResNet-8 on {result.test_images:,} images of Fashion-MNIST"))
    print(f"\n{summary(result.rows)}")
    print(f"{result.seconds:.0f} s. The files are in {result.folder}/")


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(exists=True, help="A .keras, .h5 or .tflite file, or a SavedModel folder.")],
    as_json: Json = False,
) -> None:
    """Show a model's layers, its groups of channels and what is frozen; of a .tflite file its tensors."""
    _start_tensorflow()
    if model.suffix == TFLITE_SUFFIX:
        from edgeprune.export.verify import verify_tflite

        result = verify_tflite(model)
        _print_json(result.to_dict()) if as_json else print(result)
        return
    from edgeprune.report import inspection

    result = inspection.inspect(_load(model))
    if as_json:
        _print_json(result.to_dict())
        return
    _print_table(result.table())
    _print_table(result.channel_table())


@app.command()
def prune(
    model: Annotated[Path, typer.Argument(exists=True, help="A trained .keras or .h5 file, or a SavedModel folder.")],
    data: Annotated[
        Path,
        typer.Option(
            exists=True, dir_okay=False, help="A .npz file with x and y, or x_train, y_train, x_test and y_test."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .keras or .h5 file to write.")],
    sparsity: Annotated[float, typer.Option(help="Fraction of zeros to end with.")] = 0.8,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 2,
    schedule: Annotated[str, typer.Option(help="polynomial or constant.")] = "polynomial",
    frequency: Annotated[int, typer.Option(help="Steps between updates of the masks.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Samples per step.")] = 32,
    learning_rate: Annotated[float | None, typer.Option(help="By default that of the model.")] = None,
    loss: Annotated[str | None, typer.Option(help="A Keras loss; by default that of the model.")] = None,
    layers: Annotated[
        list[str] | None, typer.Option(help="Name pattern of the layers to prune; may be repeated.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Prune a trained model while it trains on, and save it without wrappers."""
    _check_output(output, force, MODEL_SUFFIXES)
    _check_learning_rate(learning_rate)
    if not 0 <= sparsity < 1:
        raise ValueError(f"--sparsity is the fraction of zeros, 0 to below 1, got {sparsity:g}.")
    arrays = _read(data)
    if arrays.y_train is None:
        raise ValueError(f"{data} has no labels: pruning trains, so it needs y or y_train.")
    _start_tensorflow()
    from edgeprune.sparsity.report import sparsity_report
    from edgeprune.training import accuracy_if_classifier, prune_and_fit

    keras_model = _load(model)
    before = accuracy_if_classifier(keras_model, arrays.x_test, arrays.y_test)
    pruned = prune_and_fit(
        keras_model,
        arrays.x_train,
        arrays.y_train,
        sparsity=sparsity,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        frequency=frequency,
        layers=layers or None,
        loss=loss,
    )
    after = accuracy_if_classifier(pruned, arrays.x_test, arrays.y_test)
    _save(pruned, output, force)
    report = sparsity_report(pruned)
    if as_json:
        _print_json({**report.to_dict(), "output": str(output), "accuracy_before": before, "accuracy": after})
        return
    print(report)
    if after is not None:
        print(f"accuracy {before:.2%} before, {after:.2%} after, on {len(arrays.x_test):,} samples")
    print(f"wrote {output}")


@app.command()
def channels(
    model: Annotated[Path, typer.Argument(exists=True, help="A .keras or .h5 file, or a SavedModel folder.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The .keras or .h5 file to write; without it the plan is only shown."),
    ] = None,
    macs: Annotated[float | None, typer.Option(help="Fraction of the multiplications to keep.")] = None,
    params: Annotated[float | None, typer.Option(help="Fraction of the parameters to keep.")] = None,
    ratio: Annotated[float | None, typer.Option(help="Fraction of the channels to remove.")] = None,
    round_to: Annotated[str, typer.Option(help="Leave multiples of this number; or tile, tile-int8.")] = "1",
    importance: Annotated[str, typer.Option(help="How channels are ranked; l2, lamp, taylor and others.")] = "l2",
    scope: Annotated[str, typer.Option(help="global, local or isomorphic.")] = "global",
    ignore: Annotated[
        list[str] | None, typer.Option(help="Layers to leave whole, by name pattern; repeatable.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A .npz file, for accuracy, fine-tuning and some importances."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the data to fine-tune what is left.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Samples per step.")] = 32,
    learning_rate: Annotated[float | None, typer.Option(help="By default that of the model.")] = None,
    loss: Annotated[str | None, typer.Option(help="A Keras loss; by default that of the model.")] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="Also write the plan to this .json file.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Remove channels, prove that the smaller model computes the same without them, and save it."""
    for path, suffixes in ((output, MODEL_SUFFIXES), (plan, (".json",))):
        if path is not None:
            _check_output(path, force, suffixes)
    _check_learning_rate(learning_rate)
    if epochs and data is None:
        raise ValueError("--epochs fine-tunes on data: name a file with --data.")
    if macs is params is ratio is None:
        raise ValueError("Say how much is to go: --macs, --params or --ratio.")
    arrays = None if data is None else _read(data)
    if epochs and arrays.y_train is None:
        raise ValueError(f"{data} has no labels: --epochs trains, so it needs y or y_train.")
    _start_tensorflow()
    from edgeprune.channels.plan import plan_channels
    from edgeprune.training import accuracy_if_classifier, fine_tune

    keras_model = _load(model)
    chosen = plan_channels(
        keras_model,
        macs=macs,
        params=params,
        ratio=ratio,
        importance=importance,
        scope=scope,
        round_to=int(round_to) if round_to.isdecimal() else round_to,
        ignore=ignore or (),
        data=arrays and (arrays.x_train, arrays.y_train),
        loss=loss,
    )
    smaller = chosen.apply()
    accuracies = {}
    if arrays is not None:
        accuracies["before"] = accuracy_if_classifier(keras_model, arrays.x_test, arrays.y_test)
        accuracies["cut"] = accuracy_if_classifier(smaller, arrays.x_test, arrays.y_test)
    if epochs:
        fine_tune(
            smaller,
            arrays.x_train,
            arrays.y_train,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            loss=loss,
        )
        accuracies["fine-tuned"] = accuracy_if_classifier(smaller, arrays.x_test, arrays.y_test)
    if plan is not None:
        _write_text(chosen.to_json(), plan, force)
    if output is not None:
        _save(smaller, output, force)
    if as_json:
        figures = {"macs": asdict(chosen.macs), "params": asdict(chosen.params), "channels": asdict(chosen.channels)}
        _print_json(
            {**json.loads(chosen.to_json()), **figures, "accuracy": accuracies, "output": output and str(output)}
        )
        return
    print(chosen)
    if None not in accuracies.values() and accuracies:
        figures = ", ".join(f"{value:.2%} {when}" for when, value in accuracies.items())
        print(f"accuracy {figures}, on {len(arrays.x_test):,} samples")
    print("nothing written: name a file with -o" if output is None else f"wrote {output}")


@app.command()
def convert(
    model: Annotated[Path, typer.Argument(exists=True, help="A .keras or .h5 file, or a SavedModel folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .tflite file to write.")],
    quantize: Annotated[str, typer.Option(help="none, dynamic, float16, int8 or int16x8.")] = "none",
    data: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A .npz file; int8 and int16x8 need its inputs.")
    ] = None,
    sparse: Annotated[bool, typer.Option("--sparse", help="Store weights without their zeros.")] = False,
    float_io: Annotated[bool, typer.Option("--float-io", help="An integer file takes and gives floats.")] = False,
    uint8_io: Annotated[bool, typer.Option("--uint8-io", help="An int8 file has uint8 inputs and outputs.")] = False,
    per_tensor_dense: Annotated[
        bool, typer.Option("--per-tensor-dense", help="One scale for a dense layer: less RAM on microcontrollers.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Convert a model to a .tflite file, run the file, and compare it with the model."""
    _check_output(output, force, (TFLITE_SUFFIX,))
    if quantize not in FORMATS:
        raise ValueError(f"--quantize {quantize} is unknown; choose one of {', '.join(FORMATS)}.")
    if float_io and uint8_io:
        raise ValueError("--float-io and --uint8-io exclude each other.")
    if quantize in ("int8", "int16x8") and data is None:
        raise ValueError(f"--quantize {quantize} needs samples of what the model will see: name a file with --data.")
    samples = None if data is None else _read(data).x_train
    _start_tensorflow()
    from edgeprune.export.tflite import export_tflite

    result = export_tflite(
        _load(model),
        output,
        None if quantize == "none" else quantize,
        samples,
        sparse=sparse,
        integer_io="uint8" if uint8_io else not float_io,
        per_channel_dense=not per_tensor_dense,
        overwrite=force,
    )
    _print_json(result.to_dict()) if as_json else print(result)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .tflite file.")],
    model: Annotated[Path | None, typer.Option(exists=True, help="The Keras model it was converted from.")] = None,
    data: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A .npz file; x_test and y_test are used if there.")
    ] = None,
    threads: Threads = 1,
    no_xnnpack: NoXnnpack = False,
    as_json: Json = False,
) -> None:
    """Run a .tflite file, compare it with its Keras model, and count its zeros.

    Exit code 1 if something is wrong with the file.
    """
    arrays = None if data is None else _read(data)
    _start_tensorflow()
    from edgeprune.export.verify import verify_tflite

    result = verify_tflite(
        file,
        None if model is None else _load(model),
        arrays and arrays.x_test,
        arrays and arrays.y_test,
        threads=threads,
        xnnpack=not no_xnnpack,
    )
    _print_json(result.to_dict()) if as_json else print(result)
    if not result.passed:
        raise typer.Exit(1)


@app.command()
def benchmark(
    files: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, help="The .tflite files; ratios are relative to the first."),
    ],
    runs: Annotated[int, typer.Option(help="How often each file is timed.")] = 50,
    warmup: Annotated[int, typer.Option(help="Runs before, untimed.")] = 5,
    threads: Threads = 1,
    no_xnnpack: NoXnnpack = False,
    as_json: Json = False,
) -> None:
    """Time .tflite files against each other, interleaved in one process."""
    _start_tensorflow()
    from edgeprune.measure import latency

    result = latency.benchmark(files, runs=runs, warmup=warmup, threads=threads, xnnpack=not no_xnnpack)
    _print_json(result.to_dict()) if as_json else print(result)


@app.command()
def bundle(
    model: Annotated[Path, typer.Argument(exists=True, help="A .keras or .h5 file, or a SavedModel folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    target: Annotated[str, typer.Option(help="The device; `edgeprune targets` lists them.")] = "phone",
    data: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A .npz file: samples to calibrate on, and to score."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A text file with a class name on each line.")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="none, dynamic, float16, int8 or int16x8; by default the target's first.")
    ] = None,
    sparse: Annotated[bool, typer.Option("--sparse", help="Store weights without their zeros; for phones.")] = False,
    mean: Annotated[
        list[float] | None, typer.Option(help="What was subtracted from raw values; one, or one for each channel.")
    ] = None,
    std: Annotated[list[float] | None, typer.Option(help="What they were divided by then.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name in the bundle.")] = None,
    author: Annotated[str, typer.Option(help="Who made the model.")] = "",
    model_version: Annotated[str, typer.Option(help="The model's version.")] = "1",
    description: Annotated[str, typer.Option(help="What the model does.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the folder where it is a bundle.")] = False,
    as_json: Json = False,
) -> None:
    """Write a folder for a device: the model, proven on the device's runtime, and the code that calls it."""
    from edgeprune import targets as known
    from edgeprune.atomic import check_folder

    known.target(target)
    if not force:
        check_folder(output)
    classes = None if labels is None else _lines(labels)
    arrays = None if data is None else _read(data)
    _start_tensorflow()
    from edgeprune.export.bundle import export_bundle
    from edgeprune.export.bundle_content import Preprocessing

    scored = arrays is not None and arrays.y_test is not None
    result = export_bundle(
        _load(model),
        output,
        target,
        arrays and arrays.x_train,
        labels=classes,
        validation_data=(arrays.x_test, arrays.y_test) if scored else None,
        preprocessing=Preprocessing(tuple(mean or [0.0]), tuple(std or [1.0])) if mean or std else None,
        quantization="default" if quantize is None else None if quantize == "none" else quantize,
        sparse=sparse,
        name=name,
        author=author,
        version=model_version,
        description=description,
        force=force,
    )
    _print_json(result.to_dict()) if as_json else print(result)


@app.command()
def targets(as_json: Json = False) -> None:
    """List the devices that `edgeprune bundle` writes for."""
    from edgeprune.targets import TARGETS

    if as_json:
        _print_json({entry.name: entry.to_dict() for entry in TARGETS.values()})
        return
    from rich.table import Table

    table = Table("target", "kind", "quantizations", "RAM", "flash", "round to", "description")
    for entry in TARGETS.values():
        kinds = ", ".join(quantization or "none" for quantization in entry.quantizations)
        memories = [f"{size // 1024:,} KiB" if size else "" for size in (entry.ram_bytes, entry.flash_bytes)]
        table.add_row(entry.name, entry.kind, kinds, *memories, str(entry.round_to), entry.description)
    _print_table(table)


def _check_output(path: Path, force: bool, suffixes: tuple[str, ...]) -> None:
    """Refuse an output that could not be written, before the slow part."""
    from edgeprune.atomic import check_parents

    if path.suffix not in suffixes:
        raise ValueError(f"{path}: the output must end in {' or '.join(suffixes)}.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file.")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists.")
    check_parents(path)


def _check_learning_rate(rate: float | None) -> None:
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"--learning-rate must be a positive number, got {rate:g}.")


def _lines(path: Path) -> list[str]:
    """The lines of a text file, whose editor may have begun it with a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error.reason} at byte {error.start}.") from error


def _read(data: Path) -> Arrays:
    from edgeprune.datasets import load_npz

    return load_npz(data)


def _load(path: Path) -> Any:
    from edgeprune import flavor
    from edgeprune.progress import status
    from edgeprune.quiet import captured_output

    with status(f"Reading {path}"), captured_output():
        return flavor.load_model(path)


def _save(model: Any, path: Path, force: bool) -> None:
    from edgeprune.atomic import atomic_path
    from edgeprune.quiet import captured_output

    with atomic_path(path, overwrite=force) as temporary, captured_output():
        model.save(temporary)


def _write_text(text: str, path: Path, force: bool) -> None:
    from edgeprune.atomic import atomic_path

    with atomic_path(path, overwrite=force) as temporary:
        temporary.write_text(text)


def _start_tensorflow() -> None:
    """Import TensorFlow without what it says at its start."""
    from edgeprune.progress import status
    from edgeprune.quiet import captured_output

    with status("Starting TensorFlow"), captured_output():
        import tensorflow  # noqa: F401


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, indent=2))


def _print_table(table: Table) -> None:
    from rich.console import Console

    Console().print(table)


def main() -> None:
    """Run the command line."""
    app()
