"""The trials of one search in a file, so that a search that was stopped goes on after its last trial."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from edgeprune.atomic import NotOverwrittenError
from edgeprune.search.journal_file import JournalFile
from edgeprune.search.trial_record import Trial
from edgeprune.types import PathLike


class TrialJournal:
    """The trials of a search, each written to a file when it is done.

    Args:
        path: the file; None to keep the trials in memory alone.
        search: all that the trials depend on, by name, as plain values: fingerprints of the model and the data, and
            every setting. A file of another search is refused.
        resume: whether a file with trials is continued.

    Attributes:
        trials: those that were made, with those of a run before.

    Raises:
        FileExistsError: the file has trials, and `resume` is false.
        OSError: the file cannot be read or written.
        ValueError: the file is of another search, no such journal, damaged, or written by another process.
    """

    def __init__(self, path: PathLike | None, search: Mapping[str, Any], *, resume: bool = False) -> None:
        self.trials: list[Trial] = []
        self._file = None if path is None else JournalFile(path, "trials")
        if self._file is None:
            return
        try:
            self._open(self._file, search, resume)
        except BaseException:
            self._file.close()
            raise

    def _open(self, file: JournalFile, search: Mapping[str, Any], resume: bool) -> None:
        if not file.records:
            file.append({"search": search})
            return
        first, *records = file.records
        if differing := _differing(first.get("search", {}), search):
            raise ValueError(f"{file.path} is the journal of another search: {differing}. Choose another name.")
        if records and not resume:
            raise NotOverwrittenError(
                f"{file.path} has {len(records)} trials: pass resume=True to go on after them, or remove the file."
            )
        self.trials += [Trial.from_dict(record["trial"]) for record in records]

    def add(self, trial: Trial) -> None:
        """Keep a trial.

        Raises:
            OSError: the file cannot be written.
        """
        if self._file is not None:
            self._file.append({"trial": trial.to_dict()})
        self.trials.append(trial)

    def __enter__(self) -> TrialJournal:
        """The journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the file to others."""
        if self._file is not None:
            self._file.close()


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What two searches differ in, in words; empty where in nothing."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(
        f"another {name}" if name in ("model", "data") else f"{name} {old.get(name)!r}, now {new.get(name)!r}"
        for name in names
    )
