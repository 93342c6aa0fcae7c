"""Options that several commands share. What is out of range is refused before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edgeprune.types import Quantization

QuantizationChoice = Literal["none", Quantization]
ScheduleChoice = Literal["polynomial", "constant"]
LARGEST = 2**31 - 1  # of the counts that TensorFlow and the interpreters accept
_MOST_THREADS = 256
_LARGEST_FLOAT = 3.4e38  # of float32, in which models train


def target_names(incomplete: str) -> list[tuple[str, str]]:
    """The names of targets that begin so, each with its description."""
    from edgeprune.targets import TARGETS

    return [(name, entry.description) for name, entry in TARGETS.items() if name.startswith(incomplete)]


def positive(value: float | None) -> float | None:
    """A number above 0, or None."""
    return _checked(value, "a positive number", lambda number: 0 < number < _LARGEST_FLOAT)


def not_negative(value: float | None) -> float | None:
    """A number of 0 or more, or None."""
    return _checked(value, "a number of 0 or more", lambda number: 0 <= number < _LARGEST_FLOAT)


def _ratio(value: float | None) -> float | None:
    return _checked(value, "a fraction above 0 and below 1", lambda number: 0 < number < 1)


def _sparsity(value: float | None) -> float | None:
    return _checked(value, "a fraction from 0 to below 1", lambda number: 0 <= number < 1)


def _kept(value: float | None) -> float | None:
    return _checked(value, "a fraction above 0 and at most 1", lambda number: 0 < number <= 1)


def _levels(values: list[float] | None) -> list[float] | None:
    for value in values or ():
        _ratio(value)
    return values


def _checked(value: float | None, wanted: str, fits: Callable[[float], bool]) -> float | None:
    if value is not None and not fits(value):  # NaN fits nowhere
        raise typer.BadParameter(f"must be {wanted}, got {value:g}.")
    return value


_TILES = ("tile", "tile-int8")


def _checked_rounding(value: str) -> str:
    if value not in _TILES and not (value.isdecimal() and 0 < int(value) <= LARGEST):
        raise typer.BadParameter(f"must be a positive number, {' or '.join(_TILES)}, got {value!r}.")
    return value


def rounding(value: str) -> Any:
    """What `--round-to` says as `plan_channels` accepts it."""
    return int(value) if value.isdecimal() else value


def _not_empty(value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise typer.BadParameter("must not be empty.")
    return value


def parse_input_shapes(texts: list[str] | None) -> dict[str, tuple[int, ...]] | tuple[int, ...] | None:
    """The values of `--input-shape`: a shape, or shapes by the names of their inputs.

    Raises:
        ValueError: it is no list of sizes, or names are missing or repeated.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, _, sizes = text.rpartition("=")
        parts = sizes.split(",")
        if not all(part.strip().isdecimal() and 0 < int(part) < LARGEST for part in parts):
            raise ValueError(f"--input-shape accepts sizes such as 1,128,128,3, or NAME=1,128,128,3; got {text!r}.")
        if name in shapes:
            raise ValueError(f"--input-shape is passed twice for {name or 'the same input'!r}: name each input once.")
        shapes[name] = tuple(map(int, parts))
    if "" in shapes and len(shapes) > 1:
        raise ValueError("--input-shape is passed with a name and without one: name each input, as in NAME=1,64,3.")
    return shapes.get("", shapes) or None


def fraction_or_text(value: str | None) -> float | str | None:
    """The value of `--target-latency`: a number where it is one, else the text, which has a unit."""
    try:
        return None if value is None else float(value)
    except ValueError:
        return value


ModelArgument = Annotated[Path, typer.Argument(exists=True, help="A .keras or .h5 file, or a SavedModel folder.")]
_DATA = typer.Option(
    "--data",
    metavar="DATA",
    help="Samples: a .npz, .npy or .csv file, a folder of images for each class, or module:function.",
)
DataOption = Annotated[str, _DATA]
OptionalDataOption = Annotated[str | None, _DATA]
LabelColumnsOption = Annotated[
    list[str] | None,
    typer.Option("--label-column", help="Column of a .csv file that is a target; repeatable; by default y or y.NAME."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
NumThreadsOption = Annotated[int, typer.Option(min=1, max=_MOST_THREADS, help="Threads of the interpreter.")]
NoXnnpackOption = Annotated[bool, typer.Option("--no-xnnpack", help="Run without the XNNPACK delegate.")]
UnsafeOption = Annotated[
    bool,
    typer.Option("--unsafe", help="Load a model that carries Python code, which is run; only from a source you trust."),
]
CustomOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Your own layers, losses and metrics: package.module, path/to/file.py or module:Class; repeatable. "
        "Its code is run."
    ),
]
WithoutPreprocessingOption = Annotated[
    bool,
    typer.Option(
        "--without-preprocessing",
        help="Leave the lookup of words to the application; vocabulary.txt is written beside the file.",
    ),
]
TargetOption = Annotated[
    str, typer.Option(autocompletion=target_names, help="The device; `edgeprune targets` lists them.")
]
SearchQuantizationOption = Annotated[
    list[str] | None,
    typer.Option(
        help="How files store and compute numbers: none, dynamic, float16, int8, int16x8, int4; repeatable, the "
        "preferred one first.  [default: auto]"
    ),
]
FileQuantizationOption = Annotated[QuantizationChoice, typer.Option(help="How the file stores and computes numbers.")]
PlannedQuantizationOption = Annotated[QuantizationChoice, typer.Option(help="What the model will be converted to.")]
IgnoreOption = Annotated[list[str] | None, typer.Option(help="Layers to leave whole, by name pattern; repeatable.")]
BatchSizeOption = Annotated[int, typer.Option(min=1, max=LARGEST, help="Samples per step.")]
LearningRateOption = Annotated[float | None, typer.Option(callback=positive, help="By default that of the model.")]
LossOption = Annotated[
    str | None, typer.Option(callback=_not_empty, help="A Keras loss; by default that of the model.")
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        "--metric",
        callback=_not_empty,
        help="A Keras metric to score by, a name as scores print it (kind_accuracy), or module:function of (y_true, "
        "y_pred); by default the model's own.",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(min=0, max=2**32 - 1, help="Seed of dropout and of the order of the samples."),
]
SparsityOption = Annotated[float, typer.Option(callback=_sparsity, help="Fraction of zeros to end with.")]
PruningRatioOption = Annotated[
    float | None, typer.Option(callback=_sparsity, help="Fraction of the channels to remove.")
]
TargetMacsOption = Annotated[
    float | None, typer.Option(callback=_kept, help="Fraction of the multiplications to keep.")
]
TargetParamsOption = Annotated[float | None, typer.Option(callback=_kept, help="Fraction of the parameters to keep.")]
TargetLatencyOption = Annotated[
    str | None,
    typer.Option(metavar="FRACTION|TIME", help="Fraction of the time to keep, or a time such as 4ms, on --target."),
]
MaxRamOption = Annotated[
    str | None, typer.Option(metavar="BYTES", help="Bytes of the activations at most, such as 256kB.")
]
MaxFlashOption = Annotated[str | None, typer.Option(metavar="BYTES", help="Bytes of the file at most.")]
LevelsOption = Annotated[
    list[float] | None,
    typer.Option("--level", callback=_levels, help="A fraction to remove; repeatable; by default 0.25, 0.5 and 0.75."),
]
MaxDropOption = Annotated[
    float, typer.Option(callback=positive, help="The drop, as a fraction of the score, that counts as collapse.")
]
InputShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]SIZES",
        help="Of a model of open size, the input its MACs are for: 1,128,128,3; repeatable, with the input's name.",
    ),
]
NameOption = Annotated[str | None, typer.Option(callback=_not_empty, help="The model's name in the bundle.")]
RoundToOption = Annotated[
    str,
    typer.Option(
        callback=_checked_rounding,
        autocompletion=lambda: list(_TILES),
        help="Leave multiples of this number; or tile, tile-int8.",
    ),
]
MinChannelsOption = Annotated[int, typer.Option(min=1, max=LARGEST, help="Channels that each group keeps at least.")]
MaxRatioOption = Annotated[
    float, typer.Option(callback=_ratio, help="Fraction of its channels that a group loses at most.")
]
