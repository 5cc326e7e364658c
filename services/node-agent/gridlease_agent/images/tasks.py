"""An image for a task: pulled if it is not here, mounted, and what it says of how it is run."""

from __future__ import annotations

import asyncio
import threading

from gridlease_agent.images.fetch import Fetcher
from gridlease_agent.images.roots import Root
from gridlease_agent.images.seam import Images


class TaskImages:
    """Images as the agent's core uses them: off its loop, side by side."""

    def __init__(self, fetcher: Fetcher, images: Images) -> None:
        self._fetcher = fetcher
        self._images = images
        self._stop = threading.Event()
        self.known: tuple[str, ...] = ()  # as last seen, for who may not wait

    async def ready(self, name: str, lease_id: str, job: str) -> Root:
        """The image of that name under a lease that is prepared.

        Raises:
            Unreachable, Late: try again. Other faults: the task can never start.
        """
        digest = await asyncio.to_thread(self._fetcher.pull, name, job)
        root = await asyncio.to_thread(self._images.ready, digest, lease_id)
        await self.held()
        return root

    async def fetch(self, name: str) -> str:
        """Have it here; nobody stands on it yet. Its digest.

        Raises:
            Fault: of the name, the registry or the image.
        """
        return await asyncio.to_thread(self._fetcher.pull, name, "", self._stop)

    async def stand(self, digest: str, lease_id: str) -> Root:
        """An image that is here, under a folder that is prepared.

        Raises:
            Fault: of the image.
        """
        return await asyncio.to_thread(self._images.ready, digest, lease_id)

    async def held(self) -> tuple[str, ...]:
        """Digests of the images here, the most recently used first; then their names."""
        digests = await asyncio.to_thread(self._images.held)
        names = await asyncio.to_thread(self._fetcher.names)
        self.known = (*digests, *(name for name, digest in names.items() if digest in digests))
        return self.known

    async def room(self) -> int:
        """Bytes that images may still take without any having to leave."""
        return await asyncio.to_thread(self._images.room)

    def close(self) -> None:
        """No further layer is begun for nobody."""
        self._stop.set()
