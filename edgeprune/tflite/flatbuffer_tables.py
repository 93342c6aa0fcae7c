"""Flatbuffers by the numbers of their fields: read with every offset checked, and written."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import flatbuffers

# No honest file has more of anything: what is larger is an attack on the reader.
_MOST_ENTRIES = 1024
_MOST_NUMBERS = 1 << 16
MOST_TEXT_BYTES = 1 << 16


class Broken(Exception):
    """The file contradicts itself."""


@dataclass(frozen=True)
class FlatTable:
    """A table of a flatbuffer, read with every offset checked."""

    content: bytes
    position: int

    def number(self, field: int, layout: str, default: int = 0) -> int:
        """A number, laid out as `struct` names it."""
        place = self._place(field)
        return default if place is None else number_at(self.content, place, layout)

    def text(self, field: int) -> str:
        """A text; empty if it is left out."""
        content, place, length = self.vector(field, 1, MOST_TEXT_BYTES)
        try:
            return content[place : place + length].decode()
        except UnicodeDecodeError as error:
            raise Broken("a text is not UTF-8") from error

    def floats(self, field: int) -> tuple[float, ...]:
        """A list of float32."""
        content, place, length = self.vector(field, 4, _MOST_NUMBERS)
        return struct.unpack_from(f"<{length}f", content, place)

    def integers(self, field: int) -> tuple[int, ...]:
        """A list of int32."""
        content, place, length = self.vector(field, 4, _MOST_NUMBERS)
        return struct.unpack_from(f"<{length}i", content, place)

    def table(self, field: int) -> FlatTable | None:
        """A table; None if it is left out."""
        target = self.target(field)
        return None if target is None else FlatTable(self.content, target)

    def tables(self, field: int, most: int | None = _MOST_ENTRIES) -> list[FlatTable]:
        """A list of tables, of which there may be no more than `most`."""
        content, place, length = self.vector(field, 4, most)
        return [FlatTable(content, target_of(content, place + 4 * entry)) for entry in range(length)]

    def vector(self, field: int, size: int, most: int | None = None) -> tuple[bytes, int, int]:
        """The content, where a vector's first entry lies, and the number of its entries."""
        target = self.target(field)
        if target is None:
            return self.content, 0, 0
        length = number_at(self.content, target, "<I")
        if target + 4 + length * size > len(self.content):
            raise Broken("a list reaches past the end")
        if most is not None and length > most:
            raise Broken(f"a list has {length:,} entries")
        return self.content, target + 4, length

    def target(self, field: int) -> int | None:
        """Where what the field points to lies; `None` if the field is left out."""
        place = self._place(field)
        return None if place is None else target_of(self.content, place)

    def fields(self) -> int:
        """The number of fields the table's writer knew."""
        return (number_at(self.content, self._layout(), "<H") - 4) // 2

    def _layout(self) -> int:
        return self.position - number_at(self.content, self.position, "<i")

    def _place(self, field: int) -> int | None:
        if field >= self.fields():
            return None
        offset = number_at(self.content, self._layout() + 4 + 2 * field, "<H")
        return self.position + offset if offset else None


def number_at(content: bytes, place: int, layout: str) -> int:
    """A number at a place, laid out as `struct` names it."""
    if not 0 <= place <= len(content) - struct.calcsize(layout):
        raise Broken("an offset points outside the file")
    return struct.unpack_from(layout, content, place)[0]


def target_of(content: bytes, place: int) -> int:
    """What the offset at a place points to."""
    target = place + number_at(content, place, "<I")
    if target >= len(content):
        raise Broken("an offset points outside the file")
    return target


def root_of(content: bytes) -> FlatTable:
    """The table that a flatbuffer begins with."""
    return FlatTable(content, target_of(content, 0))


def write_table(
    builder: flatbuffers.Builder, offsets: Mapping[int, int], numbers: Mapping[int, Any] | None = None
) -> int:
    """Write a table; `numbers` has the value and the builder's method for its type."""
    builder.StartObject(max([*offsets, *(numbers or {})], default=-1) + 1)
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, (value, prepend) in (numbers or {}).items():
        prepend(field, value, 0)
    return builder.EndObject()


def write_vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    """Write a list of what is written already."""
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def write_floats(builder: flatbuffers.Builder, values: Sequence[float]) -> int:
    """Write a list of float32."""
    return builder.CreateNumpyVector(np.asarray(values, np.float32))
