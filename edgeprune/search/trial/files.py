"""The files of measured trials: what was converted, and the weights of the Keras model that it was converted from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.atomic import atomic_path


class TrialFiles:
    """The folder with them, named by the trials' numbers.

    Args:
        folder: it is made with the first of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, number: int) -> Path:
        """The .tflite file of a trial."""
        return self._folder / f"{number}.tflite"

    def has(self, number: int) -> bool:
        """Whether a trial's files are there."""
        return self._weights_path(number).exists()

    def weights(self, number: int) -> list[np.ndarray]:
        """The weights of a trial's Keras model, in the order of `flavor.weights_of(model)`."""
        with np.load(self._weights_path(number)) as stored:
            return [stored[f"{place}"] for place in range(len(stored.files))]

    def keep(self, number: int, content: bytes, weights: Sequence[np.ndarray]) -> None:
        """Write the files of a trial: the weights last, whose presence says that both are whole."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path(number)) as unfinished:
            unfinished.write_bytes(content)
        with atomic_path(self._weights_path(number)) as unfinished, unfinished.open("wb") as file:
            arrays: dict[str, Any] = {f"{place}": values for place, values in enumerate(weights)}
            np.savez(file, **arrays)

    def _weights_path(self, number: int) -> Path:
        return self._folder / f"{number}.npz"
