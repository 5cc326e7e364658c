"""Which running sandboxes need no new look: their keepers have not ended since the last one."""

from __future__ import annotations

import contextlib
import os
import select

from gridlease_agent.runtimes.states import Looked


class Sight:
    """Keeps what was seen of each running sandbox, beside its keeper's process, open.

    A keeper ends after it has written its last word, and nothing else changes what a running
    sandbox is. Of a thousand of them this costs one system call, not thousands of reads.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Looked, int]] = {}

    def still(self) -> dict[str, Looked]:
        """Those whose keepers live, as they were seen; the others are forgotten."""
        poll = select.poll()
        keepers = {}
        for lease_id, (_looked, fd) in self._seen.items():
            poll.register(fd, select.POLLIN)
            keepers[fd] = lease_id
        for fd, _events in poll.poll(0):
            self.forget(keepers[fd])
        return {lease_id: looked for lease_id, (looked, _fd) in self._seen.items()}

    def open(self, pid: int) -> int:
        """A keeper's process, to be given to ``keep`` once it was seen to be the keeper; or -1."""
        try:
            return os.pidfd_open(pid)
        except OSError:  # over already; or a kernel before 5.3, where each look reads
            return -1

    def keep(self, looked: Looked, fd: int) -> None:
        """It runs, and its keeper is behind ``fd``, which is ours from now on."""
        self.forget(looked.lease_id)
        self._seen[looked.lease_id] = (looked, fd)

    def forget(self, lease_id: str) -> None:
        """Look at it anew."""
        known = self._seen.pop(lease_id, None)
        if known is not None:
            with contextlib.suppress(OSError):
                os.close(known[1])
