"""A search as data: what was asked for and where, every trial, and what it ended with. Its journal is read into this.

record = read_search("compressed/trials.jsonl")
record.header.limits, record.trials, record.ending
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

from edgeprune import __version__
from edgeprune.measure.machine import this_machine
from edgeprune.search.curves.curves import Sensitivity
from edgeprune.search.journal.journal_file import read_records
from edgeprune.search.trial.record import Trial
from edgeprune.types import PathLike

SEARCH_FORMAT = 1
TRIALS_KIND = "trials"
TRIALS = "trials.jsonl"  # the journal, in the folder of a search
_PACKAGES = ("tensorflow", "keras", "tf-keras", "numpy", "ai-edge-litert", "optuna", "ray")


@final
@dataclass(frozen=True)
class SearchHeader:
    """What a search is: the first record of its journal.

    Attributes:
        model: the original's name.
        model_fingerprint: of its layers and weights.
        data_fingerprint: of all samples.
        target: the device's name.
        limits: the limits by name, in bytes, milliseconds and the metric's own unit.
        settings: every other setting that trials depend on, by the name of the argument.
        seed: of all that is drawn.
        metric: the name of the figure.
        higher_is_better: its direction.
        baseline: the original's, on the search's samples.
        macs: the original's multiply-accumulates.
        params: the original's parameters.
        num_samples: how many samples trials are scored on.
        widths: the channels of each group that can be cut, by its name.
        frozen: the groups and layers that keep all their channels, each with the reason.
        environment: versions of packages, the machine.
        format: of the journal.
    """

    model: str
    model_fingerprint: str
    data_fingerprint: str
    target: str
    limits: Mapping[str, float]
    settings: Mapping[str, Any]
    seed: int
    metric: str
    higher_is_better: bool
    baseline: float
    macs: int
    params: int
    num_samples: int
    widths: Mapping[str, int] = field(default_factory=dict)
    frozen: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    format: int = SEARCH_FORMAT

    def to_dict(self) -> dict[str, Any]:
        """The header as plain values, for JSON."""
        return asdict(self)

    def differences(self, other: SearchHeader) -> str:
        """What another search differs in, in words; empty where trials of one are trials of the other."""
        old, new = self._compared(), other._compared()
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return ", ".join(
            f"another {name}" if name in ("model", "data") else f"{name} {old.get(name)!r}, now {new.get(name)!r}"
            for name in names
        )

    def _compared(self) -> dict[str, Any]:
        compared = {
            "format": self.format,
            "model": self.model_fingerprint,
            "data": self.data_fingerprint,
            "target": self.target,
            "seed": self.seed,
            **self.limits,
            **self.settings,
            "metric": self.metric,
        }
        return dict(json.loads(json.dumps(compared)))


@final
@dataclass(frozen=True)
class SearchEnding:
    """What a search ended with: the last record of its journal.

    Attributes:
        winner: the number of the measured trial whose file was chosen; None where no file could be made.
        accepted: whether the file holds every limit on the samples that were held out.
        verdict: `Verdict.to_dict()` of the file: what holds, by how much not, and what was lost with its interval.
        rank_correlation: Spearman's, of the quick scores with those of the files; None where too few have both.
        notes: what the user should know, a sentence each.
    """

    winner: int | None
    accepted: bool
    verdict: Mapping[str, Any] | None
    rank_correlation: float | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The ending as plain values, for JSON."""
        return {**asdict(self), "notes": list(self.notes)}


@final
@dataclass(frozen=True)
class SearchRecord:
    """All that a journal holds.

    Attributes:
        header: what was asked for.
        trials: every trial, in order.
        sensitivity: the curves that the search was guided by; None where there are none.
        ending: None for a search that was stopped or is still running.
    """

    header: SearchHeader
    trials: tuple[Trial, ...]
    sensitivity: Sensitivity | None
    ending: SearchEnding | None


def read_search(path: PathLike) -> SearchRecord:
    """Read the journal of a search, finished or not, without changing it.

    Args:
        path: the folder of `compress`, or the file `trials.jsonl` in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no journal of a search, or damaged.
    """
    path = Path(path)
    path = path / TRIALS if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}: pass the folder of a search, the output_dir of compress.")
    records = read_records(path, TRIALS_KIND, f"pass the {TRIALS} of a search, in the output_dir of compress")
    if not records:
        raise ValueError(f"{path} holds no search yet: it was stopped as it began, or begins now. Run it again.")
    return search_of(records, str(path))


def search_of(records: list[Any], source: str) -> SearchRecord:
    """What the records of a journal say.

    Args:
        records: what the file holds, in order; of several endings the last counts.
        source: what the records are from, for errors.

    Raises:
        ValueError: they are those of no search.
    """
    found: dict[str, Any] = {}
    trials = []
    try:
        for record in records:
            ((kind, values),) = record.items()
            if kind == "trial":
                trials.append(Trial.from_dict(values))
            else:
                found[kind] = values
        if "header" not in found:
            raise ValueError("its first record, of what was asked for, is missing; run the search in another folder")
        header = SearchHeader(**found["header"])
        if header.format != SEARCH_FORMAT:
            raise ValueError(f"its format is {header.format!r}, and this version reads {SEARCH_FORMAT}; run it again")
        ending = found.get("ending") and SearchEnding(**{**found["ending"], "notes": tuple(found["ending"]["notes"])})
        sensitivity = found.get("sensitivity") and Sensitivity.from_dict(found["sensitivity"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{source} is no journal of a search: {error}") from error
    return SearchRecord(header, tuple(trials), sensitivity, ending)


def this_environment() -> dict[str, str]:
    """What a search runs on: versions of the packages that matter, Python and the machine."""
    versions = {"edgeprune": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**versions, "platform": platform.platform(), "machine": str(this_machine())}
