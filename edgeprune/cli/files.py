"""The files a command reads and writes."""

from __future__ import annotations

import logging
import random
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.types import Model

if TYPE_CHECKING:
    from edgeprune.data import Data, DataSource
    from edgeprune.measure.metrics import MetricLike
    from edgeprune.measure.score import Scores

MODEL_SUFFIXES = (".keras", ".h5")
TFLITE_SUFFIX = ".tflite"


def check_output_paths(outputs: Mapping[Path | None, tuple[str, ...]], overwrite: bool) -> None:
    """Refuse files that could not be written, before the slow part.

    Args:
        outputs: the endings that each file may have; None is a file that was not asked for.
        overwrite: whether files that exist may be replaced.
    """
    from edgeprune.atomic import check_paths

    asked = {path: suffixes for path, suffixes in outputs.items() if path is not None}
    for path, suffixes in asked.items():
        if path.suffix not in suffixes:
            raise ValueError(f"{path}: the output must end in {' or '.join(suffixes)}.")
    check_paths(*asked, overwrite=overwrite)


def write_files(writers: Mapping[Path, Callable[[Path], Any]], overwrite: bool) -> None:
    """Write files, all of them or none.

    Args:
        writers: for each file a function that writes it to the path it is called with.
        overwrite: whether files that exist may be replaced.
    """
    from edgeprune.atomic import atomic_paths, naming

    with atomic_paths(*writers, overwrite=overwrite) as unfinished:
        for (path, write), temporary in zip(writers.items(), unfinished, strict=True):
            with naming(path):
                write(temporary)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, whose editor may have begun it with a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error.reason} at byte {error.start}.") from error


def open_data_option(data: str | None, label_columns: Sequence[str] | None = None) -> DataSource | None:
    """Data in any form, read as far as they can be without a model; None where none are named."""
    if data is None:
        if label_columns:
            raise ValueError("--label-column is a column of the data: name a .csv file with --data.")
        return None
    from edgeprune import data as forms

    return forms.open_data(data, label_columns or ())


def training_data(source: DataSource, model: Model) -> Data:
    """Samples with labels, for a command that trains."""
    samples = source.read(model)
    if samples.y_train is None:
        raise ValueError(f"{samples.source} has no labels, and training needs them: y or y_train.")
    return samples


def class_names(samples: Data, model: Model) -> tuple[str, ...] | None:
    """The classes that the data name, where they are those of the model's only output."""
    from edgeprune import flavor

    outputs = list(flavor.output_tensors(model).values()) if flavor.is_graph_model(model) else []
    classes = outputs[0].shape[-1] if len(outputs) == 1 else None
    return samples.class_names if samples.class_names and len(samples.class_names) == classes else None


def measured_on(samples: Data) -> str:
    """Which samples figures are of, as a note under them."""
    if samples.held_out:
        return f"note: the scores are of the test samples in {samples.source}"
    return f"note: {samples.source} has no test samples: the scores are of those that it trains on"


def load_model_file(path: Path, unsafe: bool, custom: Sequence[str] | None = None, seed: int | None = None) -> Any:
    """A model of either Keras, without what its reading prints.

    Args:
        path: its file or folder.
        unsafe: whether code that it carries may run.
        custom: the modules with custom classes, which are imported.
        seed: of all that is random in its training: dropout, new weights, the order of the samples.
    """
    from edgeprune import flavor
    from edgeprune.flavor.custom_objects import custom_objects_of
    from edgeprune.output_capture import captured_output
    from edgeprune.progress import status

    if seed is not None:
        random.seed(seed)  # layers of Keras 3 draw the seed of their dropout when they are made
    with status(f"Reading {path}"), captured_output(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", flavor.NotCompiledWarning)
        model = flavor.load_model(path, custom_objects=custom_objects_of(custom or ()), safe_mode=not unsafe)
    for warning in caught:
        print(f"note: {warning.message}", file=sys.stderr)
    if seed is not None:
        flavor.keras_of(model).utils.set_random_seed(seed)
    return model


def save_model(model: Model, path: Path) -> None:
    """Save a model without what its saving prints."""
    from edgeprune.output_capture import captured_output

    with captured_output():
        model.save(path)


def start_tensorflow() -> None:
    """Import TensorFlow without what it says at its start."""
    from edgeprune.output_capture import captured_output
    from edgeprune.progress import status

    with status("Starting TensorFlow"), captured_output():
        import tensorflow  # noqa: F401
    logging.getLogger("tensorflow").addFilter(_is_of_use)


def _is_of_use(record: logging.LogRecord) -> bool:
    """Whether a message of TensorFlow's says more than that several models were run one after the other."""
    return "triggered tf.function retracing" not in record.getMessage()


def named_metric(name: str | None, data: str | None) -> Any:
    """A Keras metric's name as it is, and what `module:function` stands for.

    Args:
        name: what was passed as `--metric`.
        data: what was passed as `--data`, or holds the data, which it is computed on.
    """
    if name is not None and data is None:
        raise ValueError("--metric is computed on data: name them with --data.")
    if name is None or ":" not in name:
        return name
    from edgeprune.module_names import object_named

    return object_named(name)


def scorer(data: Data, metric: MetricLike | None, model: Model) -> Callable[[Any], Scores]:
    """A function that scores a model on the test samples, or says why it cannot.

    Args:
        data: the samples.
        metric: what `named_metric` returns; None for the metrics of `model`.
        model: the compiled model that the others are made from.
    """
    from edgeprune.measure.score import NoScoreError, Scores, score

    def scored(candidate: Model) -> Scores:
        try:
            return score(
                candidate,
                data.x_test,
                data.y_test,
                sample_weight=data.sample_weight_test,
                metric=metric,
                model=model,
            )
        except NoScoreError as error:
            return Scores((), 0, error.reason)

    return scored
