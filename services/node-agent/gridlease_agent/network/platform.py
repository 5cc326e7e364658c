"""Addresses of the platform, which no task may call whatever its grant says."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

_LOG = logging.getLogger(__name__)


class Platform:
    """What the operator named, and whom this node itself talks to: the mesh and the gateway."""

    def __init__(self, state: Path, named: Sequence[str] = (), mesh: str = "") -> None:
        self._file = state / "credential.json"
        self._named = tuple(named)
        self._mesh = mesh
        self._known: dict[str, tuple[str, ...]] = {}

    def addresses(self) -> tuple[str, ...]:
        """IPv4 addresses; a name that cannot be looked up now is tried again the next time."""
        return tuple(sorted({*self._named, *(x for host in self._hosts() for x in self._of(host))}))

    def _hosts(self) -> set[str]:
        try:
            kept = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):
            kept = {}
        words = [self._mesh, str(kept.get("nats_url", "")), str(kept.get("door", ""))]
        urls = [url for text in words for url in text.split(",") if url.strip()]
        hosts = {urlsplit(url if "//" in url else f"//{url}").hostname for url in urls}
        return {host for host in hosts if host}

    def _of(self, host: str) -> tuple[str, ...]:
        if host not in self._known:
            try:
                rows = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
            except OSError as trouble:
                _LOG.warning("the platform's %s is not known: %s", host, trouble)
                return ()
            self._known[host] = tuple(sorted({str(row[4][0]) for row in rows}))
        return self._known[host]
