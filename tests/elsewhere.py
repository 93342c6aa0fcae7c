"""Models loaded in a process of its own where there is no edgeprune, one for all the tests of a session.

python tests/elsewhere.py        for each line, a JSON list [Keras, model, x, outputs], saves what the model returns
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


class Elsewhere:
    """That process; it starts at the first model."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def outputs(self, keras_name: str, model: Path, x: np.ndarray) -> np.ndarray:
        """What the one output of a saved model is for `x`, in the Keras of this name."""
        if self._process is None:
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        with tempfile.TemporaryDirectory() as folder:
            inputs, outputs = f"{folder}/x.npy", f"{folder}/y.npy"
            np.save(inputs, x)
            print(json.dumps([keras_name, str(model), inputs, outputs]), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
            assert answer == "loaded\n", f"{model} does not load without edgeprune: {answer}"
            return np.load(outputs)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()


def _serve() -> None:
    import importlib

    modules: dict[str, Any] = sys.modules
    modules["edgeprune"] = None  # an import of it fails
    for line in sys.stdin:
        keras_name, model, inputs, outputs = json.loads(line)
        try:
            loaded = importlib.import_module(keras_name).models.load_model(model)
            np.save(outputs, np.asarray(loaded(np.load(inputs), training=False)))
            print("loaded", flush=True)
        except Exception as error:
            print(" ".join(f"{type(error).__name__}: {error}".split()), flush=True)


if __name__ == "__main__":
    _serve()
