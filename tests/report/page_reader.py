"""What a browser would make of a page, by the standard library's parser."""

from __future__ import annotations

import json
from html.parser import HTMLParser

NASTY = "<script>alert(1)</script>"


class PageReader(HTMLParser):
    """What a browser would make of a page: its scripts, sections, tables, and the values of their cells."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.sections, self.tables, self.tags = [], [], {}, set()
        self._within, self._texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.add(tag)
        self._within.append((tag, given))
        if tag == "script":
            self.scripts.append([given, ""])
        elif tag == "section":
            self.sections.append(given["id"])
        elif tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append(["", float(given["data-value"]) if "data-value" in given else None])

    def handle_endtag(self, tag):
        if tag == "table":
            self.tables[self._caption] = self._rows
        while self._within and self._within.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag = self._within[-1][0] if self._within else ""
        if tag == "script":
            self.scripts[-1][1] += data
        elif tag == "caption":
            self._caption += data
        elif tag in ("td", "th"):
            self._rows[-1][-1][0] += data

    def column(self, caption, number):
        """The values of a column by the row's name; the text where a cell is words."""
        rows = self.tables[caption][1:]
        return {row[0][0]: row[number][0] if row[number][1] is None else row[number][1] for row in rows}

    @property
    def figures(self):
        """What was measured, as the page holds it for machines."""
        return next(json.loads(text) for given, text in self.scripts if given.get("id") == "figures")

    @property
    def plots(self):
        """The plots, in the page's order."""
        return [json.loads(text) for given, text in self.scripts if "data-plot" in given]
