"""Makes the HTML file of a report: one file, which loads nothing and runs no script but the two that are in it.

Names of layers, classes and files are those of models that anybody may have made. The template escapes them, and the
page's security policy names its scripts by their digests, so that text that got through would still not run.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.atomic import atomic_path
from edgeprune.report.page.content import Figure, Page
from edgeprune.report.page.figures import require_plotly
from edgeprune.types import PathLike

_FOLDER = Path(__file__).parent / "templates"


def write_page(page: Page, path: PathLike, *, overwrite: bool = False) -> Path:
    """Write a report.

    Args:
        page: what is on it.
        path: the HTML file.
        overwrite: whether a file that exists may be replaced.

    Returns:
        The file.

    Raises:
        FileExistsError: `path` exists, and `overwrite` is false.
        ImportError: plotly is not installed.
    """
    content = page_html(page)
    with atomic_path(Path(path), overwrite=overwrite) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return Path(path)


def page_html(page: Page) -> str:
    """A report as the text of an HTML file."""
    require_plotly()
    plotly, packed = _plotly()
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
            script=script,
            plotly=packed,
            script_digests=[_digest(script), _digest(plotly)],
        )
    )


@functools.cache
def _plotly() -> tuple[str, str]:
    """Plotly's JavaScript, and the same compressed, in letters: as it is it would take up the file's 5 MB."""
    from plotly.offline import get_plotlyjs

    # A browser reads line breaks as one character, and so does what it computes the digest of.
    text = get_plotlyjs().replace("\r\n", "\n")
    return text, base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


@functools.cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    environment.tests["figure"] = lambda cell: isinstance(cell, Figure)
    environment.filters["json"] = _json_in_script
    return environment


def _json_in_script(values: Any) -> Any:
    """Plain values as JSON in a script element, which nothing in it can end."""
    import markupsafe

    text = json.dumps(_finite(values), allow_nan=False)
    return markupsafe.Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _finite(values: Any) -> Any:
    """The values with None for NaN and infinity, which JSON does not have."""
    if isinstance(values, Mapping):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
