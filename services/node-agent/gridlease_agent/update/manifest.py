"""May this release be taken? Pure: its signature, its product, its number, its time."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from gridlease_kernel.faults import Precondition, Unauthenticated
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import VerifyKey

PRODUCT = "gridlease-agent"
_PREFIX = b"gridlease-agent-release-1\n"  # so that no other signature of the key can stand for one
_MOST_BYTES = 64 << 10
_KEY_BYTES = 32
_MOST_VERSION = 64


@dataclass(frozen=True, slots=True)
class Release:
    """What the publisher says. ``number``: grows with each release; ``expires_s``: Unix time."""

    version: str
    number: int
    expires_s: int
    sha256: str
    size_bytes: int


def signed_text(manifest: bytes) -> bytes:
    """What the publisher's key signs."""
    return _PREFIX + manifest


def checked(
    manifest: bytes, signature: bytes, keys: Collection[str], now_s: float, highest: int
) -> Release:
    """The release, once everything speaks for it.

    Args:
        manifest: the bytes that were signed, JSON.
        signature: 64 bytes.
        keys: the pinned public keys, base64 of 32 bytes; any one of them is enough.
        now_s: Unix time.
        highest: the largest number ever taken here.

    Raises:
        Unauthenticated: RELEASE_NOT_SIGNED.
        Precondition: RELEASE_MALFORMED, RELEASE_EXPIRED, RELEASE_OLDER.
    """
    if len(manifest) > _MOST_BYTES or not any(_signed(key, manifest, signature) for key in keys):
        raise Unauthenticated(
            "No key that this node trusts has signed the release.",
            reason="RELEASE_NOT_SIGNED",
            remedy="Get it from the publisher, or pin the publisher's key "
            "(GRIDLEASE_RELEASE_KEYS).",
        )
    release = _read(manifest)
    if now_s >= release.expires_s:
        raise Precondition(
            f"The release {release.version} has expired.",
            reason="RELEASE_EXPIRED",
            remedy="Take a newer one, or set this host's time of day.",
        )
    if release.number <= highest:
        raise Precondition(
            f"Release {release.number} is not newer than {highest}, which was taken before.",
            reason="RELEASE_OLDER",
            remedy="Publish the old program again under a larger number if it is wanted.",
        )
    return release


def _signed(key: str, manifest: bytes, signature: bytes) -> bool:
    try:
        raw = base64.b64decode(key, validate=True)
        if len(raw) != _KEY_BYTES:
            return False
        VerifyKey(raw).verify(signed_text(manifest), signature)
    except (BadSignatureError, CryptoError, binascii.Error, TypeError, ValueError):
        return False
    return True


def _read(manifest: bytes) -> Release:
    try:
        said: Any = json.loads(manifest)
        archive = said["archive"]
        release = Release(
            str(said["version"]),
            int(said["number"]),
            int(said["expires_s"]),
            str(archive["sha256"]),
            int(archive["size_bytes"]),
        )
        mine = said["product"] == PRODUCT
    except (ValueError, KeyError, TypeError) as trouble:
        raise _malformed(str(trouble)) from trouble
    if not mine or release.number < 1 or release.size_bytes < 1:
        raise _malformed("its product, number or size")
    if not 0 < len(release.version) <= _MOST_VERSION:
        raise _malformed("its version")
    return release


def _malformed(what: str) -> Precondition:
    return Precondition(
        f"The release cannot be read: {what}.",
        reason="RELEASE_MALFORMED",
        remedy="Tell the publisher; it was signed as it is.",
    )
