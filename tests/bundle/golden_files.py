"""A bundle's golden vectors, and its programs run."""

from __future__ import annotations

import json
import subprocess

import numpy as np

SIZES = {"float32": 4, "int32": 4, "int64": 8, "bool": 1}


def golden(bundle):
    """The golden vectors, read as `golden.json` tells: name to `(samples, ...)` for inputs and for outputs."""
    folder = bundle.directory / "golden"
    layout = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    content = (folder / "golden.bin").read_bytes()
    parts = {"inputs": {}, "outputs": {}}
    place = 0
    for _ in range(layout["samples"]):
        for kind in ("inputs", "outputs"):
            for entry in layout[kind]:
                count = int(np.prod(entry["shape"]))
                values = np.frombuffer(content, np.dtype(entry["type"]).newbyteorder("<"), count, place)
                place += count * SIZES[entry["type"]]
                parts[kind].setdefault(entry["name"], []).append(values.reshape(entry["shape"]))
    assert place == len(content)
    return parts["inputs"], parts["outputs"], layout


def succeed(command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout
