"""Which of the forms that data come in a user means, and `load_data`, which reads them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from edgeprune.data.ports import Ports, ports_of
from edgeprune.data.samples import Data
from edgeprune.types import Model

FILE_FORMS = (
    "a .npz, .npy or .csv file, a folder with a folder of images for each class, or a function that returns data, "
    "as module:function or path/to/file.py:function"
)
_FILES = (".npz", ".npy", ".csv")


@final
@dataclass(frozen=True)
class DataSource:
    """Data that were found, and read as far as they can be without a model.

    Attributes:
        samples: returns the samples for what a model accepts, or for no model.
    """

    samples: Callable[[Ports | None], Data]

    def read(self, model: Model | Path | None = None) -> Data:
        """The samples, checked against a model.

        Args:
            model: as `load_data` accepts it.

        Raises:
            ValueError: the data are damaged, or do not fit the model.
        """
        ports = None if model is None else ports_of(model)
        samples = self.samples(ports)
        return samples if ports is None else samples.fitted(ports)


def load_data(source: str | Path, model: Model | Path | None = None, *, label_columns: Sequence[str] = ()) -> Data:
    """Read samples to train, calibrate and measure with.

    Nothing is scaled: values must be as the model expects them. Where nothing says which samples are for training and
    which for testing, all are both.

    - `.npz`: arrays `x`, `y` and `sample_weight`, or these with `_train` and `_test` behind; only inputs must be there.
      Several inputs or outputs are arrays `x.NAME` and `y.NAME`, `x_train.NAME` and so on.
    - `.npy`: inputs alone.
    - `.csv`: a line of column names, then numbers. Columns `y`, `y.NAME` (for an output, or one of several values of
      the only one) or `label_columns` are the targets, `sample_weight` weighs the samples, and the others are inputs:
      in rows of the input's shape, or for several inputs columns `NAME`, `x.NAME` and `NAME.1`, `NAME.2` and so on.
    - A folder: images as `keras.utils.image_dataset_from_directory` reads them, in a folder for each class; the classes
      sorted by name, the images resized to the model's input, values from 0 to 255. Folders `train` and `test`
      of such folders are the two parts. Images without folders are inputs alone.
    - `module:function` or `path/to/file.py:function`: the function is called without arguments, and returns an array
      of inputs, a tuple `(x, y)` or `(x, y, sample_weight)`, a dict with the names above, batches of these (a
      `tf.data.Dataset`, a `PyDataset`, a generator), or a tuple of two of these tuples or batches, for training and
      testing. In place of an array may be a list or a dict of arrays, for several inputs or outputs.

    Args:
        source: one of these.
        model: the model the data are for, of `keras` 3 or `tf_keras`, or a .tflite file; names are checked against it.
            Without a model they are returned as they are, and images keep their size.
        label_columns: columns of a .csv file that are targets, whatever their names.

    Returns:
        The samples. For several inputs or outputs each part is a dict by their names.

    Raises:
        FileNotFoundError: there is nothing at `source`.
        ImportError: the module or the function is not there, or its import stopped.
        ValueError: the data are damaged, incomplete, not numbers, NaN, infinite, or do not fit the model.

    Example:
        >>> load_data("data.npz", model).x_train.shape
        (64, 8, 8, 1)
    """
    return open_data(source, label_columns).read(model)


def open_data(source: str | Path, label_columns: Sequence[str] = ()) -> DataSource:
    """Find data and read what can be read without a model, so that what is wrong with it is reported early.

    Args:
        source: as `load_data` accepts it.
        label_columns: as `load_data` accepts it.

    Raises:
        FileNotFoundError, ImportError, ValueError: as `load_data`.
    """
    path, kind = Path(source), _kind(source)
    if label_columns and kind != ".csv":
        raise ValueError(f"Columns of labels are named for a .csv file, not for {source}.")
    if kind == "folder":
        from edgeprune.data.images import open_folder

        return DataSource(open_folder(path))
    if kind == "function":
        from edgeprune.data.modules import open_function

        return DataSource(open_function(str(source)))
    if kind == ".csv":
        from edgeprune.data.tables import open_csv

        return DataSource(open_csv(path, label_columns))
    from edgeprune.data import arrays

    samples = arrays.read_npz(path) if kind == ".npz" else arrays.read_npy(path)
    return DataSource(lambda ports: samples)


def _kind(source: str | Path) -> str:
    path = Path(source)
    if path.is_dir():
        return "folder"
    if path.suffix.lower() in _FILES:
        if not path.is_file():
            raise FileNotFoundError(f"No data file at {path}")
        return path.suffix.lower()
    if ":" in str(source):
        return "function"
    if not path.exists():
        raise FileNotFoundError(f"There are no data at {path}: name {FILE_FORMS}.")
    raise ValueError(f"{path} is no data file: name {FILE_FORMS}.")
