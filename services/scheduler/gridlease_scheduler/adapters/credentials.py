"""Node credentials signed with a key of the mesh's account."""

from __future__ import annotations

from pathlib import Path

from gridlease_kernel.faults import Precondition
from gridlease_mesh.credentials import UserSigner


class SignedCredentials:
    """``ports.Credentials`` with a signing key: it can make users and nothing else."""

    def __init__(self, seed: Path, prefix: str, ttl_s: int) -> None:
        """Open the key.

        Raises:
            Precondition: it is not there, or damaged.
        """
        if not seed.is_file():
            raise Precondition(
                f"The signing key {seed} is not there.",
                reason="ACCOUNT_SEED_MISSING",
                field="GRIDLEASE_NATS_ACCOUNT_SEED",
                remedy="Point it to signing.seed in the broker's keys folder.",
            )
        self._signer = UserSigner(seed, prefix=prefix)
        self.ttl_s = ttl_s

    def mint(self, node_id: str, public_key: str) -> str:
        return self._signer.node(node_id, public_key, self.ttl_s)

    def revoke(self, public_key: str) -> None:
        self._signer.revoke(public_key)


class NoCredentials:
    """``ports.Credentials`` where the broker has its own accounts."""

    ttl_s = 0

    def mint(self, node_id: str, public_key: str) -> str:
        del node_id, public_key
        return ""

    def revoke(self, public_key: str) -> None:
        del public_key
