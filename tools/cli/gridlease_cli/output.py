"""Answers as tables for people, or as JSON or YAML for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import yaml
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gridlease_cli.options import Options
from gridlease_cli.trouble import clean


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON has it: the protos' own names, every field."""
    found: dict[str, Any] = MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    return found


def show(options: Options, value: Any, table: Iterable[str]) -> None:
    """One answer: ``table`` is its lines for people, ``value`` what programs get."""
    if options.format == "table":
        for line in table:
            print(clean(line))
        return
    emit(options, value)


def emit(options: Options, value: Any) -> None:
    """One value for programs, as the format says."""
    data = _data(value)
    if options.format == "yaml":
        yaml.safe_dump(data, sys.stdout, sort_keys=False, allow_unicode=True)
    else:
        print(json.dumps(data, ensure_ascii=False))
    sys.stdout.flush()


def show_rows(
    options: Options, values: Sequence[Message], heads: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Many answers: a table, or a list for programs."""
    if options.format != "table":
        emit(options, values)
        return
    show_cells(heads, rows)


def cells(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines, its columns aligned."""
    words = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *words, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (list(heads), *words)
    ]


def show_cells(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people."""
    if sys.stdout.isatty():
        table = Table(box=None, header_style="bold", pad_edge=False)
        for head in heads:
            table.add_column(head, overflow="fold")
        for row in rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        Console().print(table)
        return
    for line in cells(heads, rows):
        print(line)


def _data(value: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, (list, tuple)):
        return [_data(it) for it in value]
    if isinstance(value, dict):
        return {key: _data(it) for key, it in value.items()}
    return value
