"""TaskFileService: logs and artefacts of this node's tasks, for the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from gridlease.agent.v1 import files_pb2, files_pb2_grpc
from gridlease_kernel.faults import Missing

from gridlease_agent.book import Book
from gridlease_agent.domain.spool import Phase
from gridlease_agent.ports import Artefact, Files

_LOG_PIECE_BYTES = 64 << 10
_ARTEFACT_PIECE_BYTES = 256 << 10
_LOOK_AGAIN_S = 0.1
_KEEP_PATIENCE_S = 10.0


class TaskFiles(files_pb2_grpc.TaskFileServiceServicer):
    """What the lease's folders hold; nothing outside them can be named."""

    def __init__(self, book: Book, files: Files) -> None:
        self._book = book
        self._files = files

    async def ReadLogs(  # noqa: N802 - the wire's name
        self, request: files_pb2.ReadLogsRequest, context: Any
    ) -> AsyncIterator[files_pb2.ReadLogsResponse]:
        """From ``offset_bytes`` on; with follow, until the task has ended and all was sent."""
        del context
        await self._check(request.lease)
        pieces = self._grown(request.lease, request.offset_bytes, follow=request.follow)
        async with contextlib.aclosing(pieces):
            async for content, at in pieces:
                yield files_pb2.ReadLogsResponse(content=content, next_offset_bytes=at)

    async def newest(self, lease_id: str, tail_bytes: int) -> AsyncGenerator[bytes, None]:
        """The last ``tail_bytes`` of the output, and on as it grows, until the task has ended."""
        await self._check(lease_id)
        found = await asyncio.to_thread(self._files.open_log, lease_id)
        size = 0
        if found is not None:
            size = os.fstat(found).st_size
            os.close(found)
        pieces = self._grown(lease_id, max(0, size - tail_bytes), follow=True)
        async with contextlib.aclosing(pieces):
            async for content, _at in pieces:
                yield content

    async def _grown(
        self, lease_id: str, at: int, *, follow: bool
    ) -> AsyncGenerator[tuple[bytes, int], None]:
        """Pieces of the output and the offset after each; one piece is all that is in memory."""
        file = -1
        try:
            while True:
                # Asked before the read: what was written before the end is then read for sure.
                ended = not follow or self._ended(lease_id)
                if file < 0:
                    found = await asyncio.to_thread(self._files.open_log, lease_id)
                    file = -1 if found is None else found
                while file >= 0 and (content := os.pread(file, _LOG_PIECE_BYTES, at)):
                    at += len(content)
                    yield content, at
                if ended:
                    return
                await asyncio.sleep(_LOOK_AGAIN_S)
        finally:
            if file >= 0:
                os.close(file)

    async def ListArtefacts(  # noqa: N802 - the wire's name
        self, request: files_pb2.ListArtefactsRequest, context: Any
    ) -> files_pb2.ListArtefactsResponse:
        """Of a running task there are none yet; of one that has just ended, once they are kept."""
        del context
        await self._kept(request.lease)
        return files_pb2.ListArtefactsResponse(
            artefacts=[
                files_pb2.Artefact(path=one.path, size_bytes=one.size_bytes, sha256=one.sha256)
                for one in await self._artefacts(request.lease)
            ]
        )

    async def ReadArtefact(  # noqa: N802 - the wire's name
        self, request: files_pb2.ReadArtefactRequest, context: Any
    ) -> AsyncIterator[files_pb2.ReadArtefactResponse]:
        """A listed artefact's content."""
        del context
        await self._kept(request.lease)
        file = await asyncio.to_thread(self._files.open_artefact, request.lease, request.path)
        async for content in _pieces(file):
            yield files_pb2.ReadArtefactResponse(content=content)

    async def _artefacts(self, lease_id: str) -> list[Artefact]:
        return await asyncio.to_thread(self._files.artefacts, lease_id) or []

    async def _check(self, lease_id: str) -> None:
        plain = not lease_id.startswith(".") and not {"/", "\0"} & set(lease_id)
        if plain and lease_id in self._book.spool.rows:
            return
        if plain and await asyncio.to_thread(self._files.known, lease_id):
            return
        raise Missing(
            f"Nothing of lease {lease_id!r} is on this node.",
            reason="LEASE_NOT_HERE",
            field="lease",
            remedy="A node keeps logs and outputs for a limited time after the end.",
        )

    def _ended(self, lease_id: str) -> bool:
        row = self._book.spool.rows.get(lease_id)
        return row is None or row.phase >= Phase.EXITED

    async def _kept(self, lease_id: str) -> None:
        """Wait, for a while, until an ended task's outputs are kept."""
        await self._check(lease_id)
        loop = asyncio.get_running_loop()
        until = loop.time() + _KEEP_PATIENCE_S
        while loop.time() < until:
            row = self._book.spool.rows.get(lease_id)
            if row is None or row.phase is not Phase.EXITED:
                return
            await asyncio.sleep(_LOOK_AGAIN_S)


async def _pieces(file: int) -> AsyncIterator[bytes]:
    try:
        while content := await asyncio.to_thread(os.read, file, _ARTEFACT_PIECE_BYTES):
            yield content
    finally:
        os.close(file)
