"""A TOML file of records, read field by field: what is wrong is told by file, field and remedy.

``entries`` opens the file; a ``Table`` reads one record of it, remembers which fields were asked
for, and ``close`` refuses those that nobody knows, so that a misspelt field is never silently lost.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources.abc import Traversable
from typing import Any, NoReturn, TypeGuard

from gridlease_kernel.faults import Invalid


class Table:
    """One record of a data file."""

    def __init__(self, values: Mapping[str, Any], file: str, path: str, reason: str) -> None:
        self._values = values
        self._file = file
        self._path = path
        self._reason = reason
        self._asked: set[str] = set()

    def text(self, name: str, default: str | None = None, pattern: str = "") -> str:
        """A text; without a default it must stand there and say something."""
        value = self._take(name, default)
        if not isinstance(value, str) or (default is None and not value.strip()):
            self.refuse(name, f"{value!r} is no text.", f"Write it in quotes{pattern or ': ...'}.")
        return value

    def whole(self, name: str, default: int | None = None, *, low: int = 0) -> int:
        """A whole number, at least ``low``."""
        value = self._take(name, default)
        if not _whole(value) or value < low:
            self.refuse(
                name, f"{value!r} is no whole number of at least {low}.", "Write digits only."
            )
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self._take(name, default)
        if not isinstance(value, bool):
            self.refuse(name, f"{value!r} is neither true nor false.", "Write true or false.")
        return value

    def choice(self, name: str, known: Iterable[str], default: str | None = None) -> str:
        """One of the words that are known here."""
        value = self._take(name, default)
        words = tuple(known)
        if value not in words:
            self.refuse(name, f"{value!r} is not known.", f"Write one of {', '.join(words)}.")
        return str(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; none where the field is absent."""
        values = self._take(name, [])
        if not isinstance(values, list) or not all(isinstance(x, str) for x in values):
            self.refuse(name, f"{values!r} is no list of texts.", 'Write it as ["8.0", "8.6"].')
        return tuple(values)

    def wholes(self, name: str) -> tuple[tuple[str, int], ...]:
        """A table of whole numbers above 0, by lower-case name; none where it is absent."""
        values = self._take(name, {})
        if not isinstance(values, dict):
            self.refuse(name, f"{values!r} is no table.", "Write it as { resnet-50 = 457 }.")
        for key, value in values.items():
            if not _whole(value) or value < 1:
                self.refuse(
                    f"{name}.{key}", f"{value!r} is no whole number above 0.", "Write digits only."
                )
        return tuple(sorted((key.lower(), value) for key, value in values.items()))

    def table(self, name: str, *, optional: bool = False) -> Table | None:
        """A table within this one; None where it may be and is absent."""
        value = self._take(name, {} if optional else None)
        if not isinstance(value, dict):
            self.refuse(name, f"{value!r} is no table.", "Write it as { field = value, ... }.")
        if optional and not value:
            return None
        return Table(value, self._file, f"{self._path}.{name}", self._reason)

    def inner(self, name: str) -> Table:
        """A table within this one that must be there."""
        found = self.table(name)
        assert found is not None, name
        return found

    def close(self) -> None:
        """Refuses fields that nobody asked for."""
        for name in self._values:
            if name not in self._asked:
                near = difflib.get_close_matches(name, sorted(self._asked), n=1)
                remedy = f"Write {near[0]}." if near else "Leave it out."
                self.refuse(name, "No such field is known.", remedy)

    def refuse(self, name: str, message: str, remedy: str) -> NoReturn:
        """Raises the fault for a field of this record."""
        raise _fault(self._file, f"{self._path}.{name}", message, remedy, self._reason)

    def _take(self, name: str, default: Any) -> Any:
        self._asked.add(name)
        if name not in self._values and default is None:
            self.refuse(name, "It is missing.", "Add it; docs/chips.md says what each field means.")
        return self._values.get(name, default)


def entries(file: Traversable, key: str, reason: str) -> list[Table]:
    """The records under ``[[key]]`` of a file, in its order.

    Raises:
        Invalid: With this reason, where the file is no TOML or ``key`` is no list of records.
    """
    return sections(file, (key,), reason)[key]


def sections(file: Traversable, keys: tuple[str, ...], reason: str) -> dict[str, list[Table]]:
    """The records under each of several keys; a key that the file lacks has none.

    Raises:
        Invalid: With this reason, where the file is no TOML, holds other keys or no records.
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        remedy = "Correct the file; its form is that of TOML 1.0."
        raise _fault(file.name, "", f"It is no TOML: {error}.", remedy, reason) from error
    other = next((name for name in values if name not in keys), None)
    if other is not None:
        remedy = f"Write {' or '.join(f'[[{key}]]' for key in keys)}."
        raise _fault(file.name, other, "No such record is known.", remedy, reason)
    found: dict[str, list[Table]] = {}
    for key in keys:
        records = values.get(key, [])
        if not isinstance(records, list) or not all(isinstance(x, dict) for x in records):
            remedy = f"Write each record under a line [[{key}]]."
            raise _fault(file.name, key, "It is no list of records.", remedy, reason)
        found[key] = [
            Table(record, file.name, f"{key}[{index}]", reason)
            for index, record in enumerate(records)
        ]
    return found


def files(folder: Traversable) -> list[Traversable]:
    """The TOML files of a folder, by name."""
    found = (each for each in folder.iterdir() if each.name.endswith(".toml"))
    return sorted(found, key=lambda each: each.name)


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _fault(file: str, field: str, message: str, remedy: str, reason: str) -> Invalid:
    return Invalid(
        f"{file}: {field or 'the file'}: {message}",
        reason=reason,
        field=f"{file}:{field}" if field else file,
        remedy=remedy,
        metadata={"file": file},
    )
