"""How much worse a model gets as each part of it is pruned alone: the curves that `sensitivity` measures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeprune.atomic import atomic_path
from edgeprune.number_checks import check_number
from edgeprune.text_table import text_table
from edgeprune.types import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SENSITIVITY_FORMAT = 1
SensitivityKind = Literal["channels", "weights"]


@dataclass(frozen=True)
class SensitivityCurve:
    """The scores of a model of which one part alone was pruned.

    Attributes:
        name: of the group of channels, or the path name of the layer.
        layers: path names of the layers that the group's channels run through; the one layer.
        size: how many channels or weights there are.
        removed: how many of them were removed at each level, ascending.
        scores: the score at each level.
    """

    name: str
    layers: tuple[str, ...]
    size: int
    removed: tuple[int, ...]
    scores: tuple[float, ...]

    @property
    def levels(self) -> tuple[float, ...]:
        """The fraction that was removed at each level."""
        return tuple(count / self.size for count in self.removed)


@dataclass(frozen=True)
class Sensitivity:
    """A curve for each group of channels, or for the weights of each layer. `edgeprune.sensitivity` returns one.

    Attributes:
        model: the model's name.
        kind: what was removed: `"channels"` or `"weights"`.
        metric: the name of the score.
        higher_is_better: the direction of the score.
        baseline: the score of the whole model.
        importance: what ranked the channels or weights.
        reconstructed: whether the layers that read a group were solved again.
        num_samples: how many samples were scored.
        curves: in the order of the layers.
        note: which outputs were not judged, and how to choose; None where none was left out.
    """

    model: str
    kind: SensitivityKind
    metric: str
    higher_is_better: bool
    baseline: float
    importance: str
    reconstructed: bool
    num_samples: int
    curves: tuple[SensitivityCurve, ...]
    note: str | None = None

    def __iter__(self) -> Iterator[SensitivityCurve]:
        """The curves."""
        return iter(self.curves)

    def __len__(self) -> int:
        """How many curves there are."""
        return len(self.curves)

    def __getitem__(self, name: str) -> SensitivityCurve:
        """The curve of this name."""
        if (curve := self.get(name)) is None:
            raise KeyError(name)
        return curve

    def get(self, name: str) -> SensitivityCurve | None:
        """The curve of this name, None where there is none."""
        return next((curve for curve in self.curves if curve.name == name), None)

    def drops(self, name: str) -> tuple[float, ...]:
        """How much worse than the baseline the score is at each level of a curve.

        Returns:
            Fractions of the baseline, negative where the score got better; where the baseline is zero, as that of a
            distance, the difference itself.
        """
        sign, scale = (1 if self.higher_is_better else -1), abs(self.baseline) or 1.0
        return tuple(sign * (self.baseline - score) / scale for score in self[name].scores)

    def collapse(self, max_drop: float = 0.1) -> dict[str, float | None]:
        """Where each part falls off its cliff.

        Args:
            max_drop: the largest drop that is borne, as `drops` counts it: 0.1 is a tenth of the baseline.

        Returns:
            For each curve the first level, a fraction removed, at which the drop is larger; None where it never is.

        Raises:
            TypeError, ValueError: `max_drop` is no number above zero.
        """
        check_number("max_drop", max_drop)
        if max_drop <= 0:
            raise ValueError(f"max_drop must be above 0; got {max_drop}.")
        return {
            curve.name: next(
                (level for level, drop in zip(curve.levels, self.drops(curve.name), strict=True) if drop > max_drop),
                None,
            )
            for curve in self.curves
        }

    def drop_per_channel(self, name: str, removed: np.ndarray) -> np.ndarray | None:
        """How much one more channel adds to the drop where so many channels of a group are removed.

        Halfway between two levels it is the slope of the curve there; elsewhere it is on the line from one such slope
        to the next, beginning with none where nothing is removed. Slopes do not fall: past a cliff, where a curve is
        flat again, channels are not cheap.

        Args:
            name: of the group.
            removed: numbers of channels, 0 or more.

        Returns:
            The drops, as `drops` counts them; None for a group without a curve.
        """
        curve = self.get(name)
        if curve is None or not curve.removed:
            return None
        counts, drops = np.array([0, *curve.removed]), np.array([0.0, *self.drops(name)])
        slopes = np.maximum.accumulate([0.0, *np.diff(drops) / np.diff(counts)])
        middles = np.array([0.0, *(counts[1:] + counts[:-1]) / 2])
        rise = (slopes[-1] - slopes[-2]) / (middles[-1] - middles[-2])
        return np.interp(removed, middles, slopes) + rise * np.maximum(removed - middles[-1], 0)

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, max_drop: float = 0.1) -> str:
        """The curves as a table: a row for each, a column for each level asked for, and where it collapses.

        Args:
            max_drop: as `collapse` accepts it.

        Returns:
            The lines, as wide as the terminal.
        """
        collapse = self.collapse(max_drop)
        most = max((len(curve.removed) for curve in self.curves), default=0)
        rows = [
            (
                curve.name,
                f"{curve.size:,}",
                *(f"{score:.4g} at {level:.0%}" for level, score in zip(curve.levels, curve.scores, strict=True)),
                *("" for _ in range(most - len(curve.removed))),
                "" if (level := collapse[curve.name]) is None else f"{level:.0%}",
            )
            for curve in self.curves
        ]
        direction = "higher" if self.higher_is_better else "lower"
        how = " after the layers that read it were solved again" if self.reconstructed else ""
        header = ("group" if self.kind == "channels" else "layer", self.kind, *(self.metric,) * most, "collapse")
        return "\n".join(
            [
                f"Sensitivity of {self.model!r}: {self.metric} {self.baseline:.4g}, {direction} is better, on "
                f"{self.num_samples:,} samples",
                f"each alone{how}; collapse: the first level with a drop of more than {max_drop:.0%}",
                text_table(header, rows),
                *([] if self.note is None else [f"note: {self.note}"]),
            ]
        )

    def plot(self, ax: Axes | None = None, *, max_drop: float = 0.1) -> Axes:
        """Plot all curves, with a cross where each collapses.

        Args:
            ax: matplotlib axes to draw on; new ones where left out.
            max_drop: as `collapse` accepts it.

        Returns:
            The axes.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there are no curves.

        Example:
            >>> axes = ep.sensitivity(model, x, levels=(0.25, 0.5)).plot()
            >>> [text.get_text() for text in axes.get_legend().get_texts()]
            ['stem', 'conv']
        """
        from edgeprune.search.curves.curve_plot import plot_curves

        if not self.curves:
            raise ValueError(f"There are no curves of {self.model!r} to plot.")
        lines = {curve.name: (curve.levels, curve.scores) for curve in self.curves}
        ax = plot_curves(lines, self.baseline, self.collapse(max_drop), ax)
        ax.set(xlabel=f"{self.kind} removed", ylabel=self.metric, title=f"Sensitivity of {self.model}")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {"format": SENSITIVITY_FORMAT, **dataclasses.asdict(self)}

    def save(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Write the curves to a JSON file.

        Args:
            path: the file to write.
            overwrite: whether a file that exists may be replaced.

        Raises:
            FileExistsError: `path` exists and `overwrite` is false.
        """
        with atomic_path(Path(path), overwrite=overwrite) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: PathLike) -> Sensitivity:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no curves.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} holds no curves that sensitivity(...).save() wrote: {error!s:.200}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sensitivity:
        """The curves that `to_dict` wrote.

        Raises:
            ValueError: the values are those of no curves.
        """
        try:
            return _read(values)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"these are no curves: {error!r}") from error


def _read(content: Mapping[str, Any]) -> Sensitivity:
    if content["format"] != SENSITIVITY_FORMAT:
        raise ValueError(f"format {content['format']!r}")
    curves = tuple(
        SensitivityCurve(
            name=str(one["name"]),
            layers=tuple(map(str, one["layers"])),
            size=int(one["size"]),
            removed=tuple(map(int, one["removed"])),
            scores=tuple(map(float, one["scores"])),
        )
        for one in content["curves"]
    )
    for curve in curves:
        _check_curve(curve)
    if content["kind"] not in ("channels", "weights"):
        raise ValueError(f"kind {content['kind']!r}")
    return Sensitivity(
        model=str(content["model"]),
        kind=content["kind"],
        metric=str(content["metric"]),
        higher_is_better=bool(content["higher_is_better"]),
        baseline=float(content["baseline"]),
        importance=str(content["importance"]),
        reconstructed=bool(content["reconstructed"]),
        num_samples=int(content["num_samples"]),
        curves=curves,
        note=None if content.get("note") is None else str(content["note"]),
    )


def _check_curve(curve: SensitivityCurve) -> None:
    counts: Sequence[int] = (0, *curve.removed)
    ascending = all(a < b for a, b in zip(counts, counts[1:], strict=False))
    if len(curve.removed) != len(curve.scores) or not ascending or counts[-1] > curve.size:
        raise ValueError(f"the curve of {curve.name!r} has levels that do not fit")
