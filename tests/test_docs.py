"""The site's pages: their Python runs, their links lead somewhere, every public name has its place in the reference."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import docs_pages
import pytest
from used_names import checked_calls

import edgeprune

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [*PAGES, *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"))]
WITH_PYTHON = [page for page in PAGES if docs_pages.blocks_of(page)]
WITH_SLOW_PYTHON = [page for page in WITH_PYTHON if any(mark == "slow" for mark, _ in docs_pages.blocks_of(page))]

FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r'^--8<-- "([^":]+)(?::(\w+))?"$', re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def ran(pages: list[Path], **environment: str) -> dict[str, str | None]:
    """What went wrong in each page, all of them run in one process."""
    done = subprocess.run(
        [sys.executable, docs_pages.__file__, *map(str, pages)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def errors():
    return ran(WITH_PYTHON)


def titled(page: Path) -> str:
    return page.relative_to(ROOT / "docs").as_posix()


@pytest.mark.parametrize("page", WITH_PYTHON, ids=titled)
def test_python_of_a_page_runs_from_its_top_to_its_end(page, errors):
    assert errors[str(page)] is None, errors[str(page)]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=titled)
def test_what_a_page_uses_of_edgeprune_is_there(page):
    """In blocks that are slow or never run, too."""
    checked_calls(code for _, code in docs_pages.blocks_of(page))


def test_a_name_or_argument_that_is_not_there_is_found():
    with pytest.raises(AttributeError):
        checked_calls(["import edgeprune as ep", "ep.measure.no_such"])
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        checked_calls(["import edgeprune as ep", "ep.count_macs(model, no_such=1)"])


@pytest.mark.slow
def test_slow_python_of_the_pages_runs():
    assert WITH_SLOW_PYTHON
    wrong = {page: error for page, error in ran(WITH_SLOW_PYTHON, EDGEPRUNE_SLOW_PAGES="1").items() if error}
    assert not wrong, "\n".join(wrong.values())


def test_a_page_that_fails_is_reported_with_its_block(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n??? note\n\n    ```python\n    x += 1\n    assert x == 3\n    ```\n")
    assert "assert x == 3" in docs_pages.run(page, slow=False)
    page.write_text(
        "<!-- slow -->\n```python\n1 / 0\n```\n<!-- not run: no device -->\n```python\nraise OSError\n```\n"
    )
    assert docs_pages.run(page, slow=False) is None
    assert "ZeroDivisionError" in docs_pages.run(page, slow=True)


def whole(page: Path) -> str:
    """A page's text with the parts of other files that it includes, without code."""

    def included(match: re.Match) -> str:
        name, section = match.groups()
        text = (ROOT / name).read_text()
        if section is None:
            return text
        (part,) = re.findall(
            rf"<!-- --8<-- \[start:{section}\] -->\n(.*?)<!-- --8<-- \[end:{section}\]", text, re.DOTALL
        )
        return part

    return FENCE.sub("", SNIPPET.sub(included, page.read_text()))


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub and mkdocs make it of plain English."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def broken_links(page: Path) -> list[str]:
    """The links of a page to files and anchors of this repository that are not there."""
    broken = []
    for link in LINK.findall(whole(page)):
        path, _, fragment = link.partition("#")
        if "://" in path:
            continue
        target = page.parent / path if path else page
        if not target.exists():
            broken.append(link)
        elif fragment and fragment not in map(anchor, HEADING.findall(whole(target))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings_that_are_there(page):
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One two\n[a](#one-two) [b](#three) [c](page.md#one-two) [d](other.md) [e](https://x.org/y)\n")
    assert broken_links(page) == ["#three", "other.md"]


def test_links_of_the_site_stay_on_the_site():
    """A page that links to a file beside `docs/` would be dead where only the site is published."""
    docs = (ROOT / "docs").absolute()
    for page in PAGES:
        for link in LINK.findall(whole(page)):
            if "://" not in link and not link.startswith("#"):
                target = Path(os.path.normpath(page.parent / link.partition("#")[0]))
                assert target.is_relative_to(docs), (page, link)


def test_every_page_and_notebook_is_in_the_navigation():
    """A hand-made list of pages; read as text, since the tests need no YAML."""
    listed = set(re.findall(r"[:-] ([\w/]+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    notebooks = {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert listed == {titled(page) for page in PAGES} | notebooks


def test_every_public_name_stands_in_the_reference_once():
    text = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    modules = {name for name in edgeprune.__all__ if type(getattr(edgeprune, name)).__name__ == "module"}
    listed = [name for name in re.findall(r"^::: edgeprune\.(\w+)$", text, re.MULTILINE) if name not in modules]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(edgeprune.__all__) - modules - {"__version__"}, "list it on a page of docs/api"


def test_every_table_of_figures_stands_below_its_command():
    """In the benchmarks' page: no section with a table lacks the command that prints it, and the script is there."""
    for section in re.split(r"^## ", whole(ROOT / "docs" / "benchmarks.md"), flags=re.MULTILINE)[1:]:
        scripts = re.findall(r"^    python (benchmarks/\w+\.py)", section, re.MULTILINE)
        assert scripts and all((ROOT / script).exists() for script in scripts), section[:60]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """With what `make docs` installs: without it this fails rather than hides."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "api" / "channels.html").read_text()
    assert "plan_channels" in reference and "Parameters:" in reference
