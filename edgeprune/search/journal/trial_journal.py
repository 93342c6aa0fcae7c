"""The journal of one search in a file, so that a search that was stopped continues after its last trial."""

from __future__ import annotations

from typing import Any

from edgeprune.atomic import NotOverwrittenError
from edgeprune.search.curves.curves import Sensitivity
from edgeprune.search.journal.journal_file import ClosesFile, JournalFile
from edgeprune.search.journal.search_record import TRIALS_KIND, SearchEnding, SearchHeader, search_of
from edgeprune.search.trial.record import Trial
from edgeprune.types import PathLike


class TrialJournal(ClosesFile):
    """The trials of a search, each written to a file when it is done.

    Args:
        path: the file; None to keep the trials in memory alone.
        header: what the search is. A file with trials of another search is refused.
        resume: whether a file with trials is continued.

    Attributes:
        header: what the search is.
        trials: those that were made, with those of a run before.
        sensitivity: the curves of a run before; None where there are none.

    Raises:
        FileExistsError: the file has trials, and `resume` is false.
        OSError: the file cannot be read or written.
        ValueError: the file has trials of another search, is no such journal, damaged, or written by another process.
    """

    def __init__(self, path: PathLike | None, header: SearchHeader, *, resume: bool = False) -> None:
        self.header = header
        self.trials: list[Trial] = []
        self.sensitivity: Sensitivity | None = None
        self._file = None if path is None else JournalFile(path, TRIALS_KIND)
        if self._file is None:
            return
        try:
            self._open(self._file, header, resume)
        except BaseException:
            self._file.close()
            raise

    def _open(self, file: JournalFile, header: SearchHeader, resume: bool) -> None:
        if not file.records:
            file.append({"header": header.to_dict()})
            return
        known = search_of(file.records, str(file.path))
        differing = known.header.differences(header)
        if differing and all(trial.state == "failed" for trial in known.trials):  # there is nothing to lose
            file.clear()
            file.append({"header": header.to_dict()})
            return
        if differing:
            raise ValueError(f"{file.path} is the journal of another search: {differing}. Pass another folder.")
        if known.trials and not resume:
            raise NotOverwrittenError(
                f"{file.path} has {len(known.trials)} trials: pass resume=True to go on after them, or another folder."
            )
        self.trials += known.trials
        self.sensitivity = known.sensitivity

    def add(self, trial: Trial) -> None:
        """Keep a trial.

        Raises:
            OSError: the file cannot be written.
        """
        self._append("trial", trial.to_dict())
        self.trials.append(trial)

    def guide_by(self, curves: Sensitivity) -> None:
        """Keep the curves that the search is guided by.

        Raises:
            OSError: the file cannot be written.
        """
        self._append("sensitivity", curves.to_dict())
        self.sensitivity = curves

    def end(self, ending: SearchEnding) -> None:
        """Keep what the search ended with.

        Raises:
            OSError: the file cannot be written.
        """
        self._append("ending", ending.to_dict())

    def _append(self, kind: str, values: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.append({kind: values})
