"""The rows of a benchmark, kept in a file, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeprune.atomic import atomic_path


class Results:
    """The rows so far, in a file that is written after each."""

    def __init__(self, path: Path, again: bool = False) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() and not again else []

    def get(self, **key: Any) -> dict[str, Any] | None:
        """The first row with these values, `None` if there is none."""
        return next((row for row in self.rows if key.items() <= row.items()), None)

    def add(self, **row: Any) -> dict[str, Any]:
        """Add a row."""
        self.rows.append(row)
        self._write()
        return row

    def update(self, row: dict[str, Any], **values: Any) -> None:
        """Add values to a row that is there."""
        row.update(values)
        self._write()

    def remove(self, **key: Any) -> None:
        """Take all rows with these values out."""
        self.rows = [row for row in self.rows if not key.items() <= row.items()]
        self._write()

    def _write(self) -> None:
        with atomic_path(self.path) as unfinished:
            unfinished.write_text(json.dumps(self.rows, indent=1))
