"""What a report on a search measures beside its journal: both models and samples that were held out, in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.atomic import atomic_folder
from edgeprune.data.arrays import read_npz
from edgeprune.data.labels import by_output
from edgeprune.data.named_inputs import named_inputs
from edgeprune.data.structures import flat
from edgeprune.output_capture import captured_output
from edgeprune.search.trial.job import Samples
from edgeprune.search.verdict.judge import taken
from edgeprune.strip import strip_quantization
from edgeprune.types import Model

EVIDENCE = "evidence"
_ORIGINAL, _SMALLER, _SAMPLES = "original.keras", "model.keras", "samples.npz"
_MOST_SAMPLES, _MOST_BYTES = 2000, 64 * 2**20


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a report measures a file beside.

    Attributes:
        original: the model that was searched.
        smaller: the float model of the file; None where it is the original.
        samples: some of those that were held out.
    """

    original: Model
    smaller: Model | None
    samples: Samples


def save_evidence(folder: Path, original: Model, smaller: Model, held: Samples, seed: int) -> None:
    """Keep what `load_evidence` returns.

    Args:
        folder: of the search.
        original: the model that was searched.
        smaller: that of the file; the same one where nothing was cut.
        held: the samples that were held out, of which at most 2,000 and 64 MiB are kept.
        seed: of their choice.

    Raises:
        OSError: the files cannot be written.
        TypeError, ValueError: a model has layers that cannot be saved.
    """
    samples = held.rows(_count(held), seed)
    with atomic_folder(folder / EVIDENCE, replaces=lambda old: True) as new:
        _save(original, new / _ORIGINAL)
        if smaller is not original:
            _save(strip_quantization(smaller), new / _SMALLER)
        arrays: dict[str, Any] = {name: taken(part, samples) for name, part in _named(original, held)}
        np.savez(new / _SAMPLES, **arrays)


def load_evidence(folder: Path) -> Evidence | None:
    """What a search kept in its folder; None where it kept nothing, as it was stopped.

    Raises:
        ValueError: a file is damaged, or needs a class that is not registered, or code that runs as it is loaded.
    """
    kept = folder / EVIDENCE
    if not kept.is_dir():
        return None
    original = flavor.load_model(kept / _ORIGINAL)
    smaller = flavor.load_model(kept / _SMALLER) if (kept / _SMALLER).exists() else None
    read = read_npz(kept / _SAMPLES)
    return Evidence(original, smaller, Samples(*read.test))


def _count(held: Samples) -> int:
    of_one = sum(np.asarray(array).nbytes for array in flat([*vars(held).values()])) / held.count
    return max(1, min(_MOST_SAMPLES, held.count, int(_MOST_BYTES / max(of_one, 1))))


def _named(model: Model, held: Samples) -> Iterator[tuple[str, Any]]:
    """Each array of the samples by the name that the reader of .npz files knows it by."""
    parts = {"x_test": held.x, "y_test": held.y, "sample_weight_test": held.sample_weight}
    for name, part in parts.items():
        if isinstance(part, list | tuple) and len(part) > 1:
            outputs = flavor.output_tensors(model) if flavor.is_graph_model(model) else {}
            part = named_inputs(model, part) if name == "x_test" else by_output(outputs, part, name)
        if isinstance(part, Mapping):
            yield from ((f"{name}.{key}", values) for key, values in part.items() if values is not None)
        elif part is not None:
            yield name, part[0] if isinstance(part, list | tuple) else part


def _save(model: Model, path: Path) -> None:
    with captured_output():
        model.save(path)
