"""Prepared environments under one folder, by name (``names.json``) or by lock hash."""

from __future__ import annotations

import json
from pathlib import Path

from gridlease_kernel.faults import Missing

from gridlease_agent import environments
from gridlease_agent.ports import Prepared


class PreparedFolder:
    """The environments that this node can show in a sandbox."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _named(self) -> dict[str, str]:
        try:
            names = json.loads((self._folder / "names.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(name): str(sha256) for name, sha256 in names.items()}

    def resolve(self, name: str) -> Prepared:
        """The environment of that name or hash.

        Raises:
            Missing: RUNTIME_MISSING.
        """
        sha256 = self._named().get(name, name)
        found = environments.find(self._folder.parent, sha256)
        if found is None:
            raise Missing(
                f"The runtime {name!r} is not prepared on this node.",
                reason="RUNTIME_MISSING",
                field="spec.runtime",
                remedy="Name one that the node lists, or prepare it there.",
            )
        return Prepared(str(found.folder), found.env)

    def names(self) -> list[str]:
        """Names and hashes that ``resolve`` answers."""
        ready = {one.lock_sha256 for one in environments.available(self._folder.parent)}
        named = {name for name, sha256 in self._named().items() if sha256 in ready}
        return sorted(named | ready)
