"""Typed values as JSON and back: what a type hint says is all that can arrive.

Frozen dataclasses travel as lists in the order of their fields, a union's member with its name in
front, bytes as base64. Decoding is strict: a value of another shape is refused, never coerced.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from gridlease_kernel.faults import Invalid

Convert = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Codec:
    """How values of one type travel: ``encode`` to JSON's types, ``decode`` from them."""

    encode: Convert
    decode: Convert


class Handle(int):
    """An open file's number. It travels beside the message; who receives it closes it."""

    __slots__ = ()


def _refuse(what: str, value: object) -> Invalid:
    return Invalid(
        f"The message holds {type(value).__name__} where {what} is due.",
        reason="MESSAGE_MALFORMED",
    )


def _plain(kind: type) -> Codec:
    def decode(value: Any) -> Any:
        if type(value) is not kind:
            raise _refuse(kind.__name__, value)
        return value

    return Codec(lambda value: value, decode)


def _bytes() -> Codec:
    def decode(value: Any) -> bytes:
        try:
            return base64.b64decode(value, validate=True)
        except (TypeError, ValueError) as trouble:
            raise _refuse("base64", value) from trouble

    return Codec(lambda value: base64.b64encode(value).decode("ascii"), decode)


def _float() -> Codec:
    def decode(value: Any) -> float:
        if type(value) not in (int, float):
            raise _refuse("a number", value)
        return float(value)

    return Codec(lambda value: value, decode)


def _enum(kind: type[enum.Enum]) -> Codec:
    def decode(value: Any) -> Any:
        try:
            return kind(value)
        except ValueError as trouble:
            raise _refuse(kind.__name__, value) from trouble

    return Codec(lambda value: value.value, decode)


def _many(make: Callable[[Iterable[Any]], Any], item: Codec) -> Codec:
    def decode(value: Any) -> Any:
        if type(value) is not list:
            raise _refuse("a list", value)
        return make(item.decode(one) for one in value)

    return Codec(lambda value: [item.encode(one) for one in value], decode)


def _row(items: Sequence[Codec], make: Callable[[list[Any]], Any], what: str) -> Codec:
    def decode(value: Any) -> Any:
        if type(value) is not list or len(value) != len(items):
            raise _refuse(what, value)
        return make([item.decode(one) for item, one in zip(items, value, strict=True)])

    def encode(value: Any) -> Any:
        return [item.encode(one) for item, one in zip(items, value, strict=True)]

    return Codec(encode, decode)


def _mapping(key: Codec, item: Codec) -> Codec:
    pairs = _many(dict, _row([key, item], tuple, "a pair"))
    return Codec(lambda value: pairs.encode(value.items()), pairs.decode)


def _record(kind: type) -> Codec:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    rows: list[Codec] = []

    def ready() -> Codec:
        if not rows:  # late, so that records may hold records
            rows.append(_row([of(hints[x]) for x in names], lambda v: kind(*v), kind.__name__))
        return rows[0]

    return Codec(
        lambda value: ready().encode([getattr(value, name) for name in names]),
        lambda value: ready().decode(value),
    )


def _union(members: tuple[Any, ...]) -> Codec:
    """``None`` travels as itself, every other member with its name in front."""
    codecs = {one.__name__: (one, of(one)) for one in members if one is not type(None)}
    nothing = type(None) in members

    def encode(value: Any) -> Any:
        if value is None and nothing:
            return None
        name = type(value).__name__
        return [name, codecs[name][1].encode(value)]

    def decode(value: Any) -> Any:
        if value is None and nothing:
            return None
        named = type(value) is list and len(value) == 2 and type(value[0]) is str
        if not named or value[0] not in codecs:
            raise _refuse(" or ".join(codecs), value)
        return codecs[value[0]][1].decode(value[1])

    return Codec(encode, decode)


_PLAIN: dict[Any, Callable[[], Codec]] = {
    str: lambda: _plain(str),
    int: lambda: _plain(int),
    bool: lambda: _plain(bool),
    type(None): lambda: _plain(type(None)),
    float: _float,
    bytes: _bytes,
}
_SEVERAL: dict[Any, Callable[[Iterable[Any]], Any]] = {
    tuple: tuple,
    list: list,
    set: set,
    frozenset: frozenset,
    Iterable: tuple,
    Collection: tuple,
    Sequence: tuple,
}
_PAIRS = (dict, Mapping)


@functools.cache
def of(hint: Any) -> Codec:
    """The codec of a type hint.

    >>> of(tuple[int, ...]).decode([1, 2])
    (1, 2)
    """
    if hint in _PLAIN:
        return _PLAIN[hint]()
    origin, words = typing.get_origin(hint), typing.get_args(hint)
    if origin is not None:
        return _generic(origin, words)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum(hint)
    assert dataclasses.is_dataclass(hint), f"{hint} cannot travel"
    assert isinstance(hint, type), hint
    return _record(hint)


def _generic(origin: Any, words: tuple[Any, ...]) -> Codec:
    if origin in (typing.Union, types.UnionType):
        return _union(words)
    if origin is typing.Literal:
        return _literal(words)
    if origin is tuple and words[1:] != (...,):
        return _row([of(word) for word in words], tuple, "a tuple")
    if origin in _PAIRS:
        return _mapping(of(words[0]), of(words[1]))
    return _many(_SEVERAL[origin], of(words[0]))


def _literal(words: tuple[Any, ...]) -> Codec:
    def decode(value: Any) -> Any:
        if not any(type(value) is type(word) and value == word for word in words):
            raise _refuse(" or ".join(map(str, words)), value)
        return value

    return Codec(lambda value: value, decode)
