"""A layer's blob becomes a folder that overlayfs can stack.

Each layer is unpacked alone, into a folder of its own: what a lower layer left behind (a symbolic
link where the next one has a folder) can mislead nobody. GNU tar keeps links from leading out
within one archive. Whiteouts become overlayfs's own; device nodes are dropped.

Source: OCI image specification 1.1, layer.md, "Whiteouts"; Linux, filesystems/overlayfs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gridlease_kernel.faults import Invalid, Precondition, TooLarge

from gridlease_agent.images.manifest import Layer

_PIECE_BYTES = 1 << 20
_MOST_FILES = 1_000_000
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_UNPACKERS = {"gzip": ("gzip", "-dc"), "zstd": ("zstd", "-dcq"), "": ("cat",)}
_TAR = (
    "tar", "--extract", "--file=-", "--numeric-owner", "--same-owner", "--same-permissions",
    "--delay-directory-restore", "--no-overwrite-dir", "--warning=no-timestamp",
)  # fmt: skip


def unpack(layer: Layer, blob: Path, folder: Path, limit_bytes: int) -> int:
    """Unpack a layer into ``folder`` (made here); answers its size unpacked, as a tar.

    Raises:
        Invalid: LAYER_CORRUPT. TooLarge: IMAGE_TOO_LARGE. Precondition: NO_UNPACKER.
    """
    program = _UNPACKERS[layer.compression]
    if shutil.which(program[0]) is None or shutil.which("tar") is None:
        raise Precondition(
            f"{program[0]} and tar are needed to unpack the image.",
            reason="NO_UNPACKER",
            field="image",
            remedy=f"Install them on the node: apt-get install -y {program[0]} tar.",
        )
    folder.mkdir(mode=0o755)
    size = _pipe(layer, program, blob, folder, limit_bytes)
    _convert(folder)
    return size


def _pipe(
    layer: Layer, program: tuple[str, ...], blob: Path, folder: Path, limit_bytes: int
) -> int:
    """Decompressor → us (hash and limit) → tar."""
    with blob.open("rb") as source:
        opener = subprocess.Popen(
            program, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    writer = subprocess.Popen(
        [*_TAR, "-C", str(folder)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert opener.stdout is not None
    assert writer.stdin is not None
    assert writer.stderr is not None
    words: list[bytes] = []
    listener = threading.Thread(target=lambda err: words.append(err.read()), args=(writer.stderr,))
    listener.start()
    sha, size = hashlib.sha256(), 0
    try:
        for piece in _pieces(opener.stdout):
            size += len(piece)
            if size > limit_bytes:
                raise TooLarge(
                    f"The image unpacks to more than {limit_bytes} bytes.",
                    reason="IMAGE_TOO_LARGE",
                    field="image",
                    remedy="Make the image smaller, or ask the operator for more room.",
                )
            sha.update(piece)
            writer.stdin.write(piece)
    except BrokenPipeError:
        pass  # tar has given up: its exit code and words say why
    finally:
        with contextlib.suppress(BrokenPipeError):
            writer.stdin.close()
        opener.stdout.close()
        opener.kill()
        if size > limit_bytes:
            writer.kill()
        opener.wait()
        code = writer.wait()
        listener.join()
        writer.stderr.close()
    if code != 0:
        text = b"".join(words).decode("utf-8", "replace").strip().splitlines()[-1:]
        raise _corrupt(layer, text[0] if text else f"tar ended with {code}")
    if f"sha256:{sha.hexdigest()}" != layer.diff_id:
        raise _corrupt(layer, "unpacked, it has another digest than the image says")
    return size


def _pieces(stream: IO[bytes]) -> Iterator[bytes]:
    while piece := stream.read(_PIECE_BYTES):
        yield piece


def _convert(folder: Path) -> None:
    """Whiteouts as overlayfs has them; no device nodes but those."""
    count = 0
    for place, names, files in os.walk(folder):
        count += len(names) + len(files)
        if count > _MOST_FILES:
            raise TooLarge(
                f"A layer has more than {_MOST_FILES} files.",
                reason="IMAGE_TOO_LARGE",
                field="image",
            )
        for name in files:
            path = os.path.join(place, name)  # noqa: PTH118 - a million of these
            if name.startswith(_WHITEOUT):
                _whiteout(place, name, path)
            elif stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFCHR, stat.S_IFBLK):
                os.unlink(path)  # noqa: PTH108


def _whiteout(place: str, name: str, path: str) -> None:
    os.unlink(path)  # noqa: PTH108
    if name == _OPAQUE:
        os.setxattr(place, "trusted.overlay.opaque", b"y")
        return
    hidden = os.path.join(place, name.removeprefix(_WHITEOUT))  # noqa: PTH118
    if hidden.rpartition("/")[2] not in ("", ".", "..") and not os.path.lexists(hidden):
        os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0))


def _corrupt(layer: Layer, why: str) -> Invalid:
    return Invalid(
        f"The layer {layer.digest} cannot be unpacked: {why}.",
        reason="LAYER_CORRUPT",
        field="image",
        remedy="Push the image again.",
    )
