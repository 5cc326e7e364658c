"""Node credentials signed with the mesh account's key."""

from __future__ import annotations

from pathlib import Path

from gridlease_kernel.faults import Precondition
from gridlease_mesh.credentials import Authority

_SEED = "mesh.seed"


class SignedCredentials:
    """``ports.Credentials`` with the installation's keys."""

    def __init__(self, seed: Path, prefix: str, ttl_s: int) -> None:
        """Open the key.

        Raises:
            Precondition: it is not there.
        """
        if seed.name != _SEED or not seed.is_file():
            raise Precondition(
                f"{seed} is not the mesh account's key.",
                reason="ACCOUNT_SEED_MISSING",
                field="GRIDLEASE_NATS_ACCOUNT_SEED",
                remedy=f"Point it to the file {_SEED} in the broker's keys folder.",
            )
        self._authority = Authority(seed.parent, prefix=prefix)
        self._ttl_s = ttl_s

    def mint(self, node_id: str, public_key: str) -> str:
        return self._authority.mint_node_user(node_id, public_key, self._ttl_s)


class NoCredentials:
    """``ports.Credentials`` where the broker has its own accounts."""

    def mint(self, node_id: str, public_key: str) -> str:
        del node_id, public_key
        return ""
