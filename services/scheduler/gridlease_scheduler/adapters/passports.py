"""Where nodes stand and with which key they sign: told to billing with each order."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gridlease_store.pool import Pool, transaction

_PASSPORTS = "SELECT id, site, public_key FROM node WHERE id = ANY($1::text[])"


@dataclass(frozen=True, slots=True)
class Passport:
    """``key``: the node's public key; empty = it signs nothing."""

    site: str
    key: str


class Passports:
    """As they are now: a node that enrols again has another key.

    ``signing``: whether nodes have credentials of their own, and so a key to sign with.
    """

    def __init__(self, pool: Pool, *, signing: bool) -> None:
        self._pool = pool
        self._signing = signing

    async def of(self, nodes: Collection[str]) -> dict[str, Passport]:
        """By node.

        Raises:
            Unreachable: the database did not answer.
        """
        async with transaction(self._pool, readonly=True) as connection:
            found = await connection.fetch(_PASSPORTS, list(nodes))
        return {
            it["id"]: Passport(it["site"], it["public_key"] if self._signing else "")
            for it in found
        }
