"""Ids: short, sortable by nothing, unguessable, safe in a subject, a path and a URL."""

from __future__ import annotations

import base64
import secrets
from typing import Protocol

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_BYTES = 10  # 80 bits, 16 letters
# base64's letters for the same five bits, turned into ours
_LETTERS = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", _ALPHABET.encode())


class Ids(Protocol):
    """Where new ids come from."""

    def new(self, prefix: str) -> str:
        """A fresh id such as ``ls-4k0…``; ``prefix`` names its kind."""
        ...


class RandomIds:
    """80 random bits an id."""

    def new(self, prefix: str) -> str:
        letters = base64.b32encode(secrets.token_bytes(_BYTES)).translate(_LETTERS)
        return f"{prefix}-{letters.decode()}"


class CountingIds:
    """1, 2, 3 …: for tests and the simulator."""

    def __init__(self) -> None:
        self._next = 0

    def new(self, prefix: str) -> str:
        self._next += 1
        return f"{prefix}-{self._next:06d}"
