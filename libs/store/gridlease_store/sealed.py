"""A file under a secret: a stream of pieces, none of which can be changed, left out or swapped.

    file = mark, work and memory for the key, salt, header, pieces of 1 MiB (the last one says so)

Source: libsodium's secretstream (XChaCha20-Poly1305) and Argon2id, by PyNaCl.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from gridlease_kernel.faults import Invalid
from nacl import bindings, exceptions, pwhash, utils

_MARK: Final = b"gridlease sealed 1\n"
_COSTS: Final = struct.Struct(">QQ")
_PIECE: Final = 1 << 20
_WORK: Final = pwhash.argon2id.OPSLIMIT_MODERATE
_MEMORY: Final = pwhash.argon2id.MEMLIMIT_INTERACTIVE
_MOST_MEMORY: Final = 1 << 30
_MOST_WORK: Final = 16
_FEWEST_BYTES: Final = 16


def is_sealed(path: Path) -> bool:
    """Whether a file needs a secret."""
    with path.open("rb") as stream:
        return stream.read(len(_MARK)) == _MARK


def check_secret(secret: bytes) -> bytes:
    """A secret as it is used: without the line break at its end.

    Raises:
        Invalid: KEY_TOO_SHORT.
    """
    secret = secret.strip()
    if len(secret) < _FEWEST_BYTES:
        raise Invalid(
            f"The key file holds fewer than {_FEWEST_BYTES} bytes.",
            reason="KEY_TOO_SHORT",
            field="key-file",
            remedy="Make one: head -c 32 /dev/urandom | base64 > FILE, and keep it elsewhere.",
        )
    return secret


def seal(source: Path, target: Path, secret: bytes) -> None:
    """Writes ``source`` to ``target`` (which must be there, empty) under a secret."""
    work, memory = _WORK, _MEMORY
    salt = utils.random(pwhash.argon2id.SALTBYTES)
    key = pwhash.argon2id.kdf(32, check_secret(secret), salt, work, memory)
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    header = bindings.crypto_secretstream_xchacha20poly1305_init_push(state, key)
    with source.open("rb") as plain, target.open("wb") as out:
        out.write(_MARK + _COSTS.pack(work, memory) + salt + header)
        piece = plain.read(_PIECE)
        while True:
            following = plain.read(_PIECE)
            tag = (
                bindings.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
                if following
                else bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL
            )
            out.write(bindings.crypto_secretstream_xchacha20poly1305_push(state, piece, None, tag))
            if not following:
                return
            piece = following


def unseal(source: Path, target: Path, secret: bytes) -> None:
    """Writes what was sealed in ``source`` to ``target``.

    Raises:
        Invalid: BACKUP_MALFORMED: another secret, or not as it was written.
    """
    size = _PIECE + bindings.crypto_secretstream_xchacha20poly1305_ABYTES
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    try:
        with source.open("rb") as sealed, target.open("wb") as out:
            assert sealed.read(len(_MARK)) == _MARK
            work, memory = _COSTS.unpack(sealed.read(_COSTS.size))
            assert work <= _MOST_WORK
            assert memory <= _MOST_MEMORY
            salt = sealed.read(pwhash.argon2id.SALTBYTES)
            key = pwhash.argon2id.kdf(32, check_secret(secret), salt, work, memory)
            header = sealed.read(bindings.crypto_secretstream_xchacha20poly1305_HEADERBYTES)
            bindings.crypto_secretstream_xchacha20poly1305_init_pull(state, header, key)
            tag = bindings.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
            while piece := sealed.read(size):
                assert tag != bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL
                told, tag = bindings.crypto_secretstream_xchacha20poly1305_pull(state, piece)
                out.write(told)
            assert tag == bindings.crypto_secretstream_xchacha20poly1305_TAG_FINAL
    except (
        AssertionError, exceptions.CryptoError, exceptions.TypeError, exceptions.ValueError,
        struct.error,
    ) as error:  # fmt: skip
        raise Invalid(
            f"{source} cannot be read with this key.",
            reason="BACKUP_MALFORMED",
            field="key-file",
            remedy="Name the key file that it was written with, or take another copy of it.",
        ) from error
