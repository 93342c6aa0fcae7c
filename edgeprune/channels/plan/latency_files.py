"""The files that a device has to time before a plan can be made for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.choices import Choices, stairs
from edgeprune.channels.plan.limited import file_template
from edgeprune.channels.plan.selection import entries, freeze, freeze_in_attention, matching
from edgeprune.channels.plan.widths import RoundTo
from edgeprune.latency.cost import operator_terms
from edgeprune.latency.device_results import write_files_to_time
from edgeprune.latency.measured import NOTHING, model_key
from edgeprune.latency.template import FileTemplate, smallest_file
from edgeprune.types import Layer, Model, PathLike, Quantization


class _Wanted:
    """Costs that note what is asked for."""

    unit = "ms"
    source = ""
    estimated = True

    def __init__(self) -> None:
        self.operators: list[tuple[int, np.ndarray]] = []

    def of_nothing(self) -> float:
        return 0.0

    def of_operators(self, template: FileTemplate, wanted: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
        self.operators += wanted
        return np.ones(len(wanted))

    def of_model(self, template: FileTemplate, counts: Sequence[np.ndarray]) -> None:
        return None


def write_latency_files(
    model: Model,
    directory: PathLike,
    quantization: Quantization | None = None,
    *,
    round_to: RoundTo = 1,
    ignore: str | Layer | Iterable[str | Layer] = (),
    min_channels: int = 1,
    max_ratio: float = 0.9,
) -> Path:
    """Write the .tflite files of single operators that a device has to time for `plan_channels(target_latency=...)`.

    Args:
        model: a built model of `keras` 3 or `tf_keras`.
        directory: a folder that does not exist; it gets `files/`, `operators.csv` and `run.sh`, which times the files
            with `benchmark_model`, on a phone over adb or on the board that the folder was copied to.
        quantization: what the model will be converted to, as `export_tflite` accepts it.
        round_to: as `plan_channels` accepts it, as are the following: a plan needs the times at the widths that it may
            choose, so pass what the plan will be passed.
        ignore: layers whose channels are kept.
        min_channels: channels that each group keeps at least.
        max_ratio: fraction of its channels that a group loses at most.

    Returns:
        The folder, for `read_latency_results` once `run.sh` has filled `results/`.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: the model cannot be converted, or an argument is out of its range.
        FileExistsError: the folder exists.

    Example:
        >>> folder = write_latency_files(model, "pixel_files", round_to=8)
        >>> sorted(file.name for file in folder.iterdir())
        ['files', 'operators.csv', 'run.sh']
    """
    graph = freeze_in_attention(trace(model), "heads")
    ignored = (group for entry in entries(ignore) for group in matching(graph, entry))
    graph = freeze(graph, {group.name: "ignored" for group in ignored})
    steps = stairs if round_to == 1 else round_to
    choices = Choices.of(graph, np.ones(graph.class_count), {}, steps, min_channels, max_ratio)
    template, wanted = file_template(graph, choices, quantization), _Wanted()
    operator_terms(template, wanted, choices.points)
    files: dict[str, Callable[[], bytes]] = {
        template.key(place, counts): partial(template.alone, place, counts) for place, counts in wanted.operators
    }
    files[NOTHING] = smallest_file
    files[model_key(template, template.counts)] = partial(template.resized, template.counts)
    return write_files_to_time(directory, files)
