"""What was measured, kept in a file as it is measured, so that a run that was stopped continues where it was."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.structures import flat
from edgeprune.search.journal.journal_file import ClosesFile, JournalFile
from edgeprune.types import Layer, Model, PathLike


class Journal(ClosesFile):
    """Measurements by key, kept in a file as they are made; of several runs, in one file.

    Args:
        path: the file; None to keep nothing.
        run: a fingerprint of all that the measurements depend on; those of another one are not seen.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no such journal, is damaged, or another process writes it.
    """

    def __init__(self, path: PathLike | None, run: str) -> None:
        self._file, self._run = None if path is None else JournalFile(path, "measurements"), run
        records = [] if self._file is None else self._file.records
        self._known = {json.dumps(one["key"]): float(one["value"]) for one in records if one["run"] == run}

    def get(self, *key: str | int) -> float | None:
        """What was measured under this key, None where nothing was."""
        return self._known.get(json.dumps(key))

    def put(self, value: float, *key: str | int) -> None:
        """Keep a measurement.

        Raises:
            OSError: the file cannot be written.
            ValueError: the value is NaN or infinite.
        """
        self._known[json.dumps(key)] = value
        if self._file is not None:
            self._file.append({"run": self._run, "key": key, "value": value})


def fingerprint(model: Model, data: Sequence[Any], settings: Sequence[Any]) -> str:
    """A text that is another one where a model, data or settings are.

    Args:
        model: what its layers are and the values of its weights count; names do not.
        data: arrays, alone, in lists or in dicts.
        settings: texts, numbers, and functions, whose code counts.
    """
    digest = hashlib.sha256()
    for layer in flavor.layers_of(model):
        digest.update(json.dumps(_config_of(layer), default=_text_of, sort_keys=True).encode())
    _add_arrays(digest, [*map(flavor.array_of, flavor.weights_of(model)), *data])
    for setting in settings:
        digest.update(f"{_text_of(setting)}\n".encode())
    return digest.hexdigest()


def data_fingerprint(data: Sequence[Any]) -> str:
    """A text that is another one where arrays, alone, in lists or in dicts, are."""
    digest = hashlib.sha256()
    _add_arrays(digest, data)
    return digest.hexdigest()


def _add_arrays(digest: hashlib._Hash, data: Sequence[Any]) -> None:
    for array in flat(list(data)):
        values = np.ascontiguousarray(np.asarray(array))
        digest.update(f"{values.dtype} {values.shape}".encode())
        digest.update(repr(values.tolist()).encode() if values.dtype == object else values.tobytes())


def _config_of(layer: Layer) -> Any:
    try:
        config = layer.get_config()
    except Exception:  # a layer of another maker may raise anything
        config = {}
    return [type(layer).__name__, {key: value for key, value in config.items() if key != "name"}]


def _text_of(value: object) -> str:
    """What stands for an object, the same in each process."""
    code, name = getattr(value, "__code__", None), getattr(value, "__name__", type(value).__name__)
    if inspect.iscode(code):
        return f"{name} {code.co_code.hex()} {[one for one in code.co_consts if not inspect.iscode(one)]}"
    if isinstance(value, str | int | float | bytes | tuple | type(None)):
        return str(value)
    return name
