"""Hears at once when a sandbox's keeper ends, without asking again and again."""

from __future__ import annotations

import asyncio
import os

from gridlease_agent.book import Bell


class Watch:
    """Rings the bell when a watched keeper's process is over."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._fds: dict[str, int] = {}

    def __contains__(self, lease_id: str) -> bool:
        return lease_id in self._fds

    def add(self, lease_id: str, pid: int) -> None:
        """Watch a lease's keeper; again is harmless. ``pid``: 0 where there is none."""
        if lease_id in self._fds or not pid:
            return
        try:
            fd = os.pidfd_open(pid)
        except OSError:  # over already; or a kernel before 5.3, where the loop's own pace must do
            return
        self._fds[lease_id] = fd
        asyncio.get_running_loop().add_reader(fd, self._over, lease_id)

    def _over(self, lease_id: str) -> None:
        self._forget(lease_id)
        self._bell.ring()

    def _forget(self, lease_id: str) -> None:
        fd = self._fds.pop(lease_id)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)

    def close(self) -> None:
        for lease_id in list(self._fds):
            self._forget(lease_id)
