"""Tables of numbers from .csv files."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from edgeprune.data.ports import Ports
from edgeprune.data.samples import Data, assembled

_DELIMITERS = ",;\t"
_ROWS = 10_000  # turned into numbers at once
_WEIGHT = "sample_weight"


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    Attributes:
        path: the file it is from.
        columns: column name to its values, one a row.
        labels: the names of the columns of targets.
    """

    path: Path
    columns: dict[str, np.ndarray]
    labels: tuple[str, ...]

    @property
    def inputs(self) -> list[str]:
        """The names of the columns that are neither targets nor weights."""
        return [name for name in self.columns if name not in self.labels and name != _WEIGHT]

    def samples(self, ports: Ports | None) -> Data:
        """The rows as samples of a model."""
        arrays = {"x": self._x(ports), "y": self._y(ports), _WEIGHT: self.columns.get(_WEIGHT)}
        return assembled(str(self.path), arrays)

    def _x(self, ports: Ports | None) -> np.ndarray | dict[str, np.ndarray]:
        if ports is None or len(ports.inputs) == 1:
            x = self._joined(self.inputs).astype(np.float32)
            return x if ports is None else self._shaped(x, self.inputs, ports)
        taken = {name: _columns_of(self.inputs, name, "x") for name in ports.inputs}
        unused = [column for column in self.inputs if not any(column in columns for columns in taken.values())]
        missing = [name for name, columns in taken.items() if not columns]
        if unused or missing:
            raise ValueError(
                f"{self.path} has the columns {_listed(self.inputs)}, and {ports.model} the inputs "
                f"{_listed(list(ports.inputs))}: name columns by the inputs, as {next(iter(ports.inputs))}, or "
                f"{next(iter(ports.inputs))}.1 and so on where an input has several."
            )
        return {
            name: self._shaped(self._joined(columns).astype(np.float32), columns, ports, name)
            for name, columns in taken.items()
        }

    def _shaped(self, x: np.ndarray, columns: Sequence[str], ports: Ports, name: str | None = None) -> np.ndarray:
        """Rows in the shape of the input, the numbers in their order."""
        shape = next(iter(ports.inputs.values())) if name is None else ports.inputs[name]
        of_input = "" if name is None else f" for {name!r}"
        try:
            return x.reshape(len(x), *(-1 if size is None else size for size in shape))
        except ValueError as error:
            raise ValueError(
                f"{self.path} has {len(columns)} columns of inputs{of_input}, {_listed(columns)}, and {ports.model} "
                f"has inputs of shape {shape}. Targets are the column y, or columns that are named as label columns."
            ) from error

    def _y(self, ports: Ports | None) -> np.ndarray | dict[str, np.ndarray] | None:
        if not self.labels:
            return None
        outputs = () if ports is None or ports.outputs is None else ports.outputs
        if ports is None or len(outputs) < 2:
            return self._target(self.labels)
        taken = {name: _columns_of(self.labels, name, "y") for name in outputs}
        if unused := [column for column in self.labels if not any(column in columns for columns in taken.values())]:
            raise ValueError(
                f"{self.path} has the targets {_listed(unused)}, and {ports.model} the outputs {_listed(outputs)}: "
                f"name columns by the outputs, as y.{outputs[0]}, or y.{outputs[0]}.1 and so on for several values."
            )
        return {name: self._target(columns) for name, columns in taken.items() if columns}

    def _target(self, columns: Sequence[str]) -> np.ndarray:
        """Targets, `(samples,)` of one column, whole numbers as such: class numbers are."""
        y = self._joined(columns) if len(columns) > 1 else self.columns[columns[0]]
        return y.astype(np.int64) if np.array_equal(y, np.floor(y)) and np.abs(y).max(initial=0) < 2**53 else y

    def _joined(self, columns: Sequence[str]) -> np.ndarray:
        rows = len(next(iter(self.columns.values())))
        return np.stack([self.columns[name] for name in columns], 1) if columns else np.zeros((rows, 0))


def open_csv(path: Path, label_columns: Sequence[str] = ()) -> Callable[[Ports | None], Data]:
    """Read a table.

    Args:
        path: a .csv file in UTF-8 whose first line names the columns, which are separated by commas, semicolons or
            tabs; numbers have a decimal point.
        label_columns: the columns of targets; by default those named `y` or `y.NAME`.

    Returns:
        A function that returns the rows as samples of a model: float32 inputs, and targets as int64 where all are whole
        numbers, otherwise float64.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is no such table. The message names the line and the column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names, values = _read(path, file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error.reason} at byte {error.start}.") from error
    except csv.Error as error:
        raise ValueError(f"{path} is no table: {error}.") from error
    if unknown := [name for name in label_columns if name not in names]:
        raise ValueError(f"{path} has no column {_listed(unknown)}; it has {_listed(names)}.")
    labels = tuple(label_columns) or tuple(name for name in names if name.partition(".")[0] == "y")
    return Table(path, dict(zip(names, values.T, strict=True)), labels).samples


def _read(path: Path, file: Iterator[str]) -> tuple[list[str], np.ndarray]:
    first = next(iter(file), "")
    delimiter = max(_DELIMITERS, key=first.count)
    names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    _check_names(path, names)
    reader = csv.reader(file, delimiter=delimiter)
    chunks = []
    while rows := [(reader.line_num + 1, row) for row in islice(reader, _ROWS)]:
        chunks.append(_numbers(path, names, [(line, row) for line, row in rows if row]))
    values = np.concatenate(chunks) if chunks else np.zeros((0, len(names)))
    if not len(values):
        raise ValueError(f"{path} has no rows under the names of its columns.")
    return names, values


def _check_names(path: Path, names: Sequence[str]) -> None:
    if not any(names):
        raise ValueError(f"{path} is empty: its first line must name the columns.")
    if all(_is_number(name) for name in names):
        raise ValueError(f"{path}: line 1 holds numbers; it must name the columns.")
    if "" in names:
        raise ValueError(
            f"{path}: column {names.index('') + 1} has no name (pandas writes its index so, unless index=False)."
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path}: two columns are named {twice[0]!r}.")


def _numbers(path: Path, names: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> np.ndarray:
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(f"{path}: line {line} has {len(row)} values for {len(names)} columns.")
    try:
        values = np.array([row for _, row in rows], np.float64).reshape(-1, len(names))
    except ValueError:
        values = None
    if values is not None and np.isfinite(values).all():
        return values
    for line, row in rows:
        for name, cell in zip(names, row, strict=True):
            if not _is_number(cell):
                what = f"holds {cell!r}, which is no number" if cell.strip() else "is empty"
                raise ValueError(
                    f"{path}: line {line}, column {name!r} {what}. Write text as numbers, such as class 0, 1, 2."
                )
    raise AssertionError("NumPy and Python read the same numbers")


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _columns_of(columns: Sequence[str], name: str, part: str) -> list[str]:
    """The columns for an input or output: named as it is, with or without the part before, or with more behind."""
    return [
        column
        for column in columns
        if column in (name, f"{part}.{name}") or column.startswith((f"{name}.", f"{part}.{name}."))
    ]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, list(names)[:8]))
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
