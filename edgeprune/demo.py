"""The whole way on Fashion-MNIST: train, prune, strip, convert, verify, time, and one table of what came out.

    edgeprune demo

`benchmarks/formats.py` does the same on the full set, and the first notebook step by step.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgeprune import datasets, flavor
from edgeprune.atomic import NotOverwrittenError, atomic_path, atomic_paths, check_paths
from edgeprune.report.tables import FormatRow
from edgeprune.types import Model, Quantization

if TYPE_CHECKING:
    import numpy as np

# The files of the table: the model each comes from, and its quantization. The first is the one the others are
# compared with.
FORMATS: tuple[tuple[str, Quantization | None], ...] = (
    ("dense", None),
    ("dense", "int8"),
    ("pruned", None),
    ("pruned", "float16"),
    ("pruned", "dynamic"),
    ("pruned", "int8"),
)
RESULTS_FILE = "results.json"
# Samples that calibrate the int8 files; more do not move their ranges.
CALIBRATION_SAMPLES = 200


@dataclass(frozen=True)
class DemoSettings:
    """How the demo trains and prunes.

    Attributes:
        flavor: `"keras"` or `"tf_keras"`.
        sparsity: fraction of zeros in the kernels to end with, 0 to below 1.
        dense_epochs: passes over the data before pruning.
        pruned_epochs: passes while pruning.
        batch_size: samples per step.
        learning_rate: of Adam at the start of training; it falls to 0 along a cosine. Pruning starts with half.
        frequency: steps between updates of the masks.
        seed: of the weights and of the order of the samples.

    Raises:
        ValueError: a number is out of range.
    """

    flavor: str = flavor.KERAS_3
    sparsity: float = 0.8
    dense_epochs: int = 4
    pruned_epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 6e-3
    frequency: int = 10
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers out of range before the slow part."""
        if self.flavor not in (flavor.KERAS_3, flavor.TF_KERAS):
            raise ValueError(f"flavor={self.flavor!r} is unknown; choose 'keras' or 'tf_keras'.")
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity must be from 0 to below 1, got {self.sparsity}.")
        for name in ("dense_epochs", "pruned_epochs", "batch_size", "frequency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")


@dataclass(frozen=True)
class DemoResult:
    """The table of the demo and how it came about.

    Attributes:
        recipe: how the models were trained.
        rows: one for each file, the dense float32 file first.
        train_images: number of images trained on.
        test_images: number of images the accuracy was measured on.
        folder: where the files are.
        seconds: wall-clock time of the whole.
    """

    recipe: DemoSettings
    rows: tuple[FormatRow, ...]
    train_images: int
    test_images: int
    folder: Path
    seconds: float

    def row(self, name: str) -> FormatRow:
        """The row of this name, for example `"pruned int8"`."""
        return next(row for row in self.rows if row.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Every figure as plain values, for JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def run_demo(
    output: str | Path = "tflite_out",
    recipe: DemoSettings | None = None,
    data: tuple[datasets.Split, datasets.Split] | None = None,
    overwrite: bool = False,
) -> DemoResult:
    """Train ResNet-8 on Fashion-MNIST, prune it, and write, verify and time it in six formats.

    All files are written, or none.

    Args:
        output: folder for the `.tflite` files, the two Keras models and `results.json`.
        recipe: how to train and prune.
        data: images and labels as `load_fashion_mnist` returns them; the embedded sample where left out.
        overwrite: whether files of an earlier run may be replaced.

    Returns:
        The figures, all measured on the files written.

    Raises:
        FileExistsError: a file exists and `overwrite` is false.
        OSError: the folder cannot be written to; the message names it.

    Example:
        >>> run_demo("tflite_out").row("pruned int8").accuracy  # doctest: +SKIP
        0.87
    """
    start = time.perf_counter()
    recipe = recipe or DemoSettings()
    folder = Path(output)
    check_files(folder, overwrite)
    (x_train, y_train), (x_test, y_test) = data or datasets.load_fashion_mnist()
    x_train, x_test = scaled(x_train), scaled(x_test)
    dense = train_dense(x_train, y_train, recipe)
    pruned = train_pruned(dense, x_train, y_train, recipe)
    with atomic_paths(*(folder / name for name in file_names()), overwrite=overwrite) as unfinished:
        temporary = unfinished[0].parent
        for name, model in (("dense", dense), ("pruned", pruned)):
            model.save(temporary / f"{name}.keras")
        rows = write_formats(dense, pruned, x_train, x_test, y_test, temporary)
        result = DemoResult(recipe, rows, len(x_train), len(x_test), folder, time.perf_counter() - start)
        save_json(temporary / RESULTS_FILE, result.to_dict())
    return result


def check_files(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that the demo's files cannot be written to, before the slow part."""
    existing = [name for name in file_names() if os.path.lexists(folder / name)]
    if existing and not overwrite:
        raise NotOverwrittenError(f"{folder} already holds {', '.join(existing)}.")
    if links := [name for name in existing if (folder / name).is_symlink()]:
        raise FileExistsError(f"{folder} holds links named {', '.join(links)}, which are not replaced; remove them.")
    check_paths(*(folder / name for name in file_names()), overwrite=overwrite)


def scaled(images: np.ndarray) -> np.ndarray:
    """Images of bytes `(n, 28, 28)` as the nets expect them: float32 `(n, 28, 28, 1)` from 0 to 1."""
    return images[..., None].astype("float32") / 255


def train_dense(x: np.ndarray, y: np.ndarray, recipe: DemoSettings) -> Any:
    """Train ResNet-8 without pruning."""
    from edgeprune.fit import fit
    from edgeprune.models import resnet8

    keras = flavor.keras_module(recipe.flavor)
    keras.utils.set_random_seed(recipe.seed)
    model = resnet8(flavor=recipe.flavor)
    rate = cosine(recipe, recipe.learning_rate, recipe.dense_epochs, len(x))
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    fit(
        model,
        x,
        y,
        epochs=recipe.dense_epochs,
        batch_size=recipe.batch_size,
        description="Training the dense model",
    )
    return model


def train_pruned(dense: Model, x: np.ndarray, y: np.ndarray, recipe: DemoSettings) -> Any:
    """A copy of the dense model, pruned while it trains on, and stripped."""
    from edgeprune.fit import prune_and_fit

    keras = flavor.keras_of(dense)
    copy = keras.models.clone_model(dense)
    copy.set_weights(dense.get_weights())
    return prune_and_fit(
        copy,
        x,
        y,
        sparsity=recipe.sparsity,
        epochs=recipe.pruned_epochs,
        batch_size=recipe.batch_size,
        learning_rate=cosine(recipe, recipe.learning_rate / 2, recipe.pruned_epochs, len(x)),
        frequency=recipe.frequency,
        description=f"Pruning to {recipe.sparsity:.0%}",
    )


def cosine(recipe: DemoSettings, start: float, epochs: int, samples: int) -> Any:
    """A Keras learning rate schedule that falls from `start` to 0 over the epochs along a cosine."""
    steps = epochs * -(-samples // recipe.batch_size)
    return flavor.keras_module(recipe.flavor).optimizers.schedules.CosineDecay(start, steps)


def file_name(model: str, quantization: str | None) -> str:
    """The name of the file of one row, for example `"pruned_int8.tflite"`."""
    return f"{model}_{quantization or 'float32'}.tflite"


def file_names() -> tuple[str, ...]:
    """The names of all files that the demo writes."""
    return "dense.keras", "pruned.keras", *(file_name(*row) for row in FORMATS), RESULTS_FILE


def write_formats(
    dense: Model,
    pruned: Model,
    x_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    folder: Path,
    formats: Sequence[tuple[str, Quantization | None]] = FORMATS,
) -> tuple[FormatRow, ...]:
    """Convert both models, and measure every file: accuracy, error, zeros, size, time.

    Args:
        dense: the model before pruning.
        pruned: the stripped model.
        x_train: float32 inputs, for calibration.
        x_test: float32 inputs to measure on.
        y_test: their class numbers.
        folder: where to write the files.
        formats: which files; the others are compared with the first.

    Returns:
        One row for each file, in the order of `formats`.
    """
    from edgeprune.export.convert import export_tflite
    from edgeprune.export.verify import verify_tflite
    from edgeprune.measure.latency import benchmark

    models = {"dense": dense, "pruned": pruned}
    paths, checks = [], []
    for name, quantization in formats:
        path = folder / file_name(name, quantization)
        samples = x_train[:CALIBRATION_SAMPLES] if quantization == "int8" else None
        export_tflite(
            models[name],
            path,
            quantization,
            samples,
            num_samples=CALIBRATION_SAMPLES,
            calibration="min-max",  # so that the rows differ by the zeros alone
            verify=False,
        )
        paths.append(path)
        checks.append(verify_tflite(path, models[name], x_test, y_test, isolated=False))
    times = benchmark(paths, num_runs=200).rows
    first = checks[0].size.gzip_bytes
    return tuple(
        FormatRow(
            name=f"{name} {quantization or 'float32'}",
            file=path.name,
            accuracy=cast(float, check.accuracy),  # there are labels
            bytes=check.size.bytes,
            gzip_bytes=check.size.gzip_bytes,
            smaller=first / check.size.gzip_bytes,
            milliseconds=latency.milliseconds,
            time_ratio=latency.ratio,
            zeros=sum(w.file_zeros or 0 for w in check.weights) / sum(w.elements for w in check.weights),
            zeros_kept=check.zeros_kept,
            largest_error=check.outputs[0].largest_error,
            agreement=cast(float, check.outputs[0].agreement),
            problems=check.problems,
        )
        for (name, quantization), path, check, latency in zip(formats, paths, checks, times, strict=True)
    )


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Write plain values as JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
