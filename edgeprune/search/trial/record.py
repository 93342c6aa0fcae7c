"""One model that a search tried, as data: what it is, what was measured, and what went wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, final, get_args

from edgeprune.schemes import Scheme, scheme_of
from edgeprune.types import Quantization

# How a trial was judged: without training on the search's samples, or exported, measured and scored as a file.
Stage = Literal["quick", "measured"]
# "pruned" is a trial that was stopped early because others were ahead.
State = Literal["ok", "failed", "nan", "oom", "pruned"]
FIGURES = ("accuracy_drop", "macs", "params", "size", "gzip_size", "flash", "ram", "arena", "latency_ms")


@final
@dataclass(frozen=True)
class Candidate:
    """A smaller model of a given one: what is removed from it, and how its file stores and computes numbers.

    Attributes:
        widths: how many channels each group keeps, by its name, of the groups that lose some.
        removed_blocks: names of the residual blocks that are removed, in the order of their removal.
        sparsity: fraction of the weights that are zero, 0 to below 1.
        quantization: of the file: a name, a `Scheme`, or None for float32.
        quantize_aware: whether it is trained for the rounding of its file.
        epochs: passes over the training samples before that, in parts that each end with a learning rate of 0.
    """

    widths: Mapping[str, int] = field(default_factory=dict)
    removed_blocks: tuple[str, ...] = ()
    sparsity: float = 0.0
    quantization: Quantization | Scheme | None = None
    quantize_aware: bool = False
    epochs: tuple[int, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing is removed: the file is the original, quantized."""
        return not (self.widths or self.removed_blocks or self.sparsity)

    def to_dict(self) -> dict[str, Any]:
        """The candidate as plain values, for JSON; a `Scheme` is a dict of its fields."""
        return {
            **asdict(self),
            "widths": dict(self.widths),
            "removed_blocks": list(self.removed_blocks),
            "epochs": list(self.epochs),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Candidate:
        """The candidate that `to_dict` wrote.

        Raises:
            ValueError: the values are those of no candidate.
        """
        try:
            stored = values["quantization"]
            quantization = Scheme(**stored) if isinstance(stored, Mapping) else scheme_of(stored).name
            widths = {str(name): int(width) for name, width in values["widths"].items()}
            blocks = tuple(map(str, values["removed_blocks"]))
            quantize_aware, epochs = bool(values["quantize_aware"]), tuple(map(int, values["epochs"]))
            return cls(widths, blocks, float(values["sparsity"]), quantization, quantize_aware, epochs)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{dict(values)!r:.80} is no candidate: {error!r}") from error


@final
@dataclass(frozen=True)
class Trial:
    """A model that was tried. What was not measured is None.

    Attributes:
        number: its place in the search, from 0.
        stage: `"quick"`, judged without training and without a file, or `"measured"`, trained and measured on the file.
        settings: what the strategy asked for, such as `{"target_macs": 0.5}`.
        candidate: the model; None where it failed before it was known.
        state: `"ok"`; `"failed"`, `"nan"` or `"oom"` with `error`; `"pruned"`, stopped early, as others were ahead.
        quick_score: the metric without training and without a file; of a measured trial that of its quick one.
        score: the metric of the file, on the search's samples; of a quick trial None.
        float_score: the metric of the Keras model that the file was converted from; of a quick trial None.
        accuracy_drop: how much worse than the original's the score of its stage is.
        drop_error: the standard error of the drop; None where the metric is no mean over samples.
        macs: multiply-accumulates of one inference.
        params: parameters of the Keras model.
        size: bytes of the file.
        gzip_size: bytes of the file after gzip.
        flash: bytes of file and code on the device.
        ram: bytes of the arena, with its margin.
        arena: bytes of the arena, as measured.
        latency_ms: milliseconds of one run.
        error: why it failed, or was stopped.
        seconds: how long it took.
    """

    number: int
    stage: Stage
    settings: Mapping[str, Any] = field(default_factory=dict)
    candidate: Candidate | None = None
    state: State = "ok"
    quick_score: float | None = None
    score: float | None = None
    float_score: float | None = None
    accuracy_drop: float | None = None
    drop_error: float | None = None
    macs: float | None = None
    params: float | None = None
    size: float | None = None
    gzip_size: float | None = None
    flash: float | None = None
    ram: float | None = None
    arena: float | None = None
    latency_ms: float | None = None
    error: str | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Leave out figures that are no numbers."""
        for name in ("quick_score", "score", "float_score", "drop_error", *FIGURES):
            value = getattr(self, name)
            finite = None if value is None or not math.isfinite(value) else float(value)
            object.__setattr__(self, name, finite)

    @property
    def figures(self) -> dict[str, float]:
        """What was measured beside the scores, by name; what `Budget.exceeded` accepts."""
        return {name: value for name in FIGURES if (value := getattr(self, name)) is not None}

    @property
    def stage_score(self) -> float | None:
        """The metric at its own stage: without training, or of the file."""
        return self.quick_score if self.stage == "quick" else self.score

    def to_dict(self) -> dict[str, Any]:
        """The trial as plain values, for JSON."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**plain, "settings": dict(self.settings), "candidate": self.candidate and self.candidate.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trial:
        """The trial that `to_dict` wrote.

        Raises:
            ValueError: the values are those of no trial.
        """
        try:
            candidate = values["candidate"] and Candidate.from_dict(values["candidate"])
            trial = cls(**{**values, "candidate": candidate})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{dict(values)!r:.80} is no trial: {error!r}") from error
        if trial.stage not in get_args(Stage) or trial.state not in get_args(State):
            raise ValueError(f"{dict(values)!r:.80} is no trial: stage {trial.stage!r}, state {trial.state!r}.")
        return trial
