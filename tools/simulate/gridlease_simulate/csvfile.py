"""CSV files, packed with gzip or not: their columns, and rows that know their line."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gridlease_simulate.fields import wrong

_GZIP: Final = b"\x1f\x8b"
MOST_BYTES: Final = 2 << 30  # unpacked


@dataclass(frozen=True, slots=True)
class Row:
    """One line. ``number`` is that of the file, the header being 1."""

    number: int
    values: Mapping[str, str]

    def field(self, column: str) -> str:
        """Where a value stands, for faults."""
        return f"line {self.number}, {column}"


@dataclass(frozen=True, slots=True)
class File:
    """A whole CSV file."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def is_csv(path: Path) -> bool:
    """Does the name say so?"""
    return path.name.lower().endswith((".csv", ".csv.gz"))


def read(path: Path) -> File:
    """All of a file.

    Raises:
        Invalid: NOT_CSV.
    """
    try:
        content = path.read_bytes()
        if content[:2] == _GZIP:
            with gzip.open(path) as packed:
                content = packed.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise _unreadable(path, f"it is over {MOST_BYTES >> 30} GiB")
        return parse(content.decode("utf-8-sig"), path.name)
    except (UnicodeDecodeError, OSError, EOFError, zlib.error, csv.Error) as error:
        raise _unreadable(path, str(error)) from error


def parse(text: str, name: str) -> File:
    """A file from its text.

    Raises:
        Invalid: ROW_LENGTH.
    """
    lines = csv.reader(text.splitlines())
    columns = tuple(each.strip() for each in next(lines, []))
    rows = []
    for cells in lines:
        if not cells:
            continue
        if len(cells) != len(columns):
            raise wrong(
                f"It has {len(cells)} values, the header has {len(columns)} columns.",
                reason="ROW_LENGTH",
                field=f"line {lines.line_num}",
                remedy="Give every column a value, which may be empty.",
            )
        values = dict(zip(columns, (each.strip() for each in cells), strict=True))
        rows.append(Row(lines.line_num, values))
    return File(name, columns, tuple(rows))


def need(file: File, columns: Iterable[str], field: str) -> None:
    """All these columns are there.

    Raises:
        Invalid: COLUMN_MISSING.
    """
    for column in columns:
        if column not in file.columns:
            raise wrong(
                f"{file.name} has no column {column!r}.",
                reason="COLUMN_MISSING",
                field=field,
                remedy=f"Add it; the header has: {', '.join(file.columns) or 'nothing'}.",
            )


def _unreadable(path: Path, why: str) -> Exception:
    return wrong(
        f"{path} is not a readable CSV file: {why}.",
        reason="NOT_CSV",
        field=str(path),
        remedy="Give a CSV file in UTF-8, packed with gzip or not.",
    )
