"""What a young agent says of itself, for whoever decides whether it may stay."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from gridlease_agent.book import Book
from gridlease_agent.domain.spool import Phase

FILE = "health.json"
ROUNDS = 3  # answered syncs after which nothing more is said
_LOOK_S = 0.25


class Health:
    """Writes ``health.json`` until the centre has answered often enough."""

    def __init__(self, state: Path, book: Book, version: str) -> None:
        self._path = state / FILE
        self._book = book
        self._version = version

    async def run(self) -> None:
        """Returns when there is nothing more to prove."""
        said = ""
        while True:
            text = json.dumps(self._record())
            if text != said:
                said = text
                await asyncio.to_thread(self._write, text)
            if self._book.synced >= ROUNDS and self._book.settled >= 1:
                return
            await asyncio.sleep(_LOOK_S)

    def _record(self) -> dict[str, object]:
        rows = self._book.spool.rows
        adopted = [k for k, row in rows.items() if row.phase >= Phase.STARTING]
        return {
            "pid": os.getpid(),
            "version": self._version,
            "adopted": sorted(adopted),
            "synced": min(self._book.synced, ROUNDS),
            "settled": min(self._book.settled, 1),
        }

    def _write(self, text: str) -> None:
        draft = self._path.with_name(f".{FILE}")
        draft.write_text(text, "utf-8")
        draft.replace(self._path)
