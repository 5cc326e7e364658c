"""One reading and what it is worth; a column of them as the mesh's report takes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gridlease_mesh.telemetry_sample import Column, Quality


class Cell(NamedTuple):
    """A whole number and its quality. ABSENT says that there is no number at all."""

    value: int = 0
    quality: Quality = Quality.ABSENT


ABSENT = Cell()


def measured(value: int | None) -> Cell:
    """A reading just taken, or none."""
    return ABSENT if value is None else Cell(value, Quality.MEASURED)


def derived(value: int | None) -> Cell:
    """A number computed from readings, or none."""
    return ABSENT if value is None else Cell(value, Quality.DERIVED)


def columns(rows: Sequence[Sequence[Cell]], width: int) -> tuple[list[Column], bytes]:
    """Rows of cells as columns of numbers, and their qualities column after column."""
    assert all(len(row) == width for row in rows), width
    numbers = [tuple(row[at].value for row in rows) for at in range(width)]
    return numbers, bytes(row[at].quality for at in range(width) for row in rows)


def qualities(cells: Iterable[Cell]) -> bytes:
    """The qualities of one row."""
    return bytes(cell.quality for cell in cells)
