"""A node's own key under a text: Ed25519, with the key that it shows to the broker.

Source: nats-io/nkeys; RFC 8032.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Final

import nkeys as _nkeys
from gridlease_kernel.faults import Invalid
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import VerifyKey

from gridlease_mesh.credentials import check_user_key, public_key_of

nkeys: Any = _nkeys  # untyped
_SEED: Final = "USER NKEY SEED"


class Signer:
    """Signs with one key; the seed stays in it."""

    def __init__(self, seed: str) -> None:
        self._pair = nkeys.from_seed(bytearray(seed.encode("ascii")))
        self.public_key = public_key_of(seed)

    def sign(self, text: bytes) -> bytes:
        """64 bytes, always the same for the same text."""
        signature: bytes = self._pair.sign(text)
        return signature


def signer_of(creds: Path) -> Signer | None:
    """The signer of a credentials file; None where there is none."""
    try:
        lines = creds.read_text("ascii").splitlines()
    except FileNotFoundError:
        return None
    at = next((k for k, line in enumerate(lines) if _SEED in line), None)
    return None if at is None else Signer(lines[at + 1])


def verified(public_key: str, text: bytes, signature: bytes) -> bool:
    """Whether this is that key's signature under the text; what is malformed is not."""
    try:
        check_user_key(public_key)
        raw = base64.b32decode(public_key + "=" * (-len(public_key) % 8))
        VerifyKey(raw[1:33]).verify(text, signature)
    except (Invalid, BadSignatureError, CryptoError, TypeError, ValueError):
        return False
    return True
