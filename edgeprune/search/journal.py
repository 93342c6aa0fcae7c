"""What was measured, kept in a file as it is measured, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.data.structures import flat
from edgeprune.types import Model, PathLike


class Journal:
    """Measurements by key, each a line of JSON that is appended to a file; of several runs, in one file.

    A line that a killed process left unfinished is not read.

    Args:
        path: the file; None to keep nothing.
        fingerprint: of all that the measurements depend on; those of another one are not seen.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, path: PathLike | None, fingerprint: str) -> None:
        self._path, self._run = None if path is None else Path(path), fingerprint
        self._known: dict[str, float] = {}
        self._is_torn = False
        if self._path is not None and self._path.exists():
            text = self._path.read_bytes()
            self._is_torn = bool(text) and not text.endswith(b"\n")
            self._known.update(self._read(text.splitlines()))

    def get(self, *key: str | int) -> float | None:
        """What was measured under this key, None where nothing was."""
        return self._known.get(json.dumps(key))

    def put(self, value: float, *key: str | int) -> None:
        """Keep a measurement.

        Raises:
            OSError: the file cannot be written.
        """
        self._known[json.dumps(key)] = value
        if self._path is None:
            return
        line = json.dumps({"run": self._run, "key": key, "value": value})
        text = ("\n" if self._is_torn else "") + line + "\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "ab", buffering=0) as file:
            file.write(text.encode())
            os.fsync(file.fileno())
        self._is_torn = False

    def _read(self, lines: Iterable[bytes]) -> dict[str, float]:
        known = {}
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                if entry["run"] == self._run and math.isfinite(entry["value"]):
                    known[json.dumps(entry["key"])] = float(entry["value"])
        return known


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
    for array in (*map(flavor.array_of, model.weights), *flat(list(data))):
        values = np.ascontiguousarray(np.asarray(array))
        digest.update(f"{values.dtype} {values.shape}".encode())
        digest.update(repr(values.tolist()).encode() if values.dtype == object else values.tobytes())
    for setting in settings:
        digest.update(f"{_text_of(setting)}\n".encode())
    return digest.hexdigest()


def _config_of(layer: Any) -> Any:
    try:
        config = layer.get_config()
    except Exception:  # a layer of another maker may raise anything
        config = {}
    return [type(layer).__name__, {key: value for key, value in config.items() if key != "name"}]


def _text_of(value: Any) -> str:
    """What stands for an object, the same in each process."""
    code = getattr(value, "__code__", None)
    if inspect.iscode(code):
        return f"{value.__name__} {code.co_code.hex()} {[one for one in code.co_consts if not inspect.iscode(one)]}"
    if isinstance(value, str | int | float | bytes | tuple | type(None)):
        return str(value)
    return getattr(value, "__name__", type(value).__name__)
