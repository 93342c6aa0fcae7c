"""Tables as text: whatever the width, no letter of a cell is lost; without a terminal a row is a line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune import text_table as tables
from edgeprune.text_table import text_table

WORDS = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=60)


@pytest.fixture
def terminal(monkeypatch):
    """A function that sets the width of the terminal; None for no terminal."""
    return lambda width: monkeypatch.setattr(tables, "terminal_width", lambda: width)


def test_figures_to_the_right_words_to_the_left():
    lines = text_table(("layer", "MACs"), [("stem", "1,728"), ("head", "64")]).splitlines()
    assert lines == ["layer   MACs", "stem   1,728", "head      64"]


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=4))
def test_nothing_is_cut(rows):
    header = ("first", "second", "third")
    wide = text_table(header, rows, left=(0, 1, 2)).splitlines()
    assert [line.split() for line in wide[1:]] == [list(row) for row in rows], "one line a row, every name whole"
    narrow = tables.text_of(tables.rich_table(header, rows, left=(0, 1, 2)), width=40)
    assert max(map(len, narrow.splitlines())) <= 40
    letters = sorted("".join("".join(row) for row in (header, *rows)))
    assert sorted(re.sub(r"\s", "", narrow)) == letters


def test_long_columns_stand_below_where_the_terminal_is_narrow(terminal):
    header, rows = (
        ("target", "RAM", "description"),
        [("phone", "8", "an Android phone " * 9), ("board", "1", "a board")],
    )
    terminal(80)
    lines = text_table(header, rows, left=(0, 2), below=(2,)).splitlines()
    assert max(map(len, lines)) <= 80
    assert (
        lines[0].split() == ["target", "RAM"] and lines[1].split() == ["phone", "8"] and lines[2].startswith("    an")
    )
    assert lines[-2:] == ["board     1", "    a board"]
    terminal(None)
    assert len(text_table(header, rows, left=(0, 2), below=(2,)).splitlines()) == 3


def test_markup_is_text():
    assert "[bold]conv[/bold]" in text_table(("layer",), [("[bold]conv[/bold]",)])


def test_colours_only_in_a_terminal_and_not_where_they_are_unwanted(terminal, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    table = tables.rich_table(("file",), [("a.tflite",)], styles=["bold red"])
    terminal(None)
    assert "\x1b" not in tables.text_of(table, colour=True)
    terminal(80)
    assert "\x1b[1;31m" in tables.text_of(table, colour=True)
    assert "\x1b" not in tables.text_of(table)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in tables.text_of(table, colour=True)


def test_sentences_are_folded_between_words_in_a_terminal_alone(terminal):
    text = f"short\n  note: {'some words ' * 12}/a/path/of/more/than/{'forty' * 8}"
    terminal(40)
    lines = tables.fold_text(text).splitlines()
    assert lines[0] == "short" and lines[1].startswith("  note: some") and lines[2].startswith("    ")
    assert all(len(line) <= 40 or line.split() == [text.split()[-1]] for line in lines)
    assert tables.fold_text(text).split() == text.split()
    terminal(None)
    assert tables.fold_text(text) == text


def test_in_a_notebook_a_table_is_text_too(monkeypatch):
    """There rich takes the cell's output for its own."""
    from rich import console

    monkeypatch.setattr(console, "_is_jupyter", lambda: True)
    assert text_table(("layer", "MACs"), [("stem", "1,728")]).splitlines() == ["layer   MACs", "stem   1,728"]
