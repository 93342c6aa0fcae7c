"""Run the Python of pages of the site, each page from its top to its end in names and a folder of its own.

    python tests/docs_pages.py PAGE.md ...        prints a JSON object: the page to its error, or to null

A block after `<!-- slow -->` runs where EDGEPRUNE_SLOW_PAGES is set; one after `<!-- not run: why -->` never does.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import textwrap
import traceback
from pathlib import Path

BLOCK = re.compile(r"(?:<!-- (slow|not run: [^\n]+) -->\n)?^( *)```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """Each block of Python with its mark: `"slow"`, `"not run: ..."` or nothing."""
    return [(mark, textwrap.dedent(code)) for mark, _, code in BLOCK.findall(page.read_text())]


def run(page: Path, slow: bool) -> str | None:
    """Run a page's blocks one after the other; the traceback of the first that fails, with the block."""
    names = {"__name__": "__main__"}
    for number, (mark, code) in enumerate(blocks_of(page), start=1):
        if mark.startswith("not run") or (mark == "slow" and not slow):
            continue
        try:
            exec(compile(code, f"{page.name}, block {number}", "exec"), names)
        except BaseException:
            return f"{traceback.format_exc()}\nin block {number}:\n{code}"
    return None


def main(pages: list[str]) -> None:
    """Run the pages in this process, so that TensorFlow is imported once."""
    slow = bool(os.environ.get("EDGEPRUNE_SLOW_PAGES"))
    errors = {}
    for page in pages:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(sys.stderr):
            errors[page] = run(Path(page), slow)
    print(json.dumps(errors))


if __name__ == "__main__":
    main(sys.argv[1:])
