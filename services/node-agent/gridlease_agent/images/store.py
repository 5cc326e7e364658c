"""Images on this node: layers by digest, shared among images, collected by space and use.

    STORE/layers/<diff id>/      one folder a layer, read-only from then on
    STORE/images/<digest>.json   which layers, and how it is run; touched when it is used

A layer's folder appears by a rename once it is whole, so a crash leaves nothing half. What an
image that is used needs is never collected; of the others the least recently used leaves first.

Needs root: files keep their owners. What it is handed was fetched by somebody without rights, so
every layer is checked here once more, against the digest that names its folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Missing, Precondition

from gridlease_agent.images import layers
from gridlease_agent.images.manifest import Image, Layer

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """An image that is ready: its folders from the top layer down, as overlayfs names them."""

    image: Image
    lowers: tuple[Path, ...]
    unpacked_bytes: int


class ImageStore:
    """Blocking; one process. ``limit_bytes``: what all layers may take, unpacked.

    ``in_use``: the images that something on this node stands on now. ``gone``: is told of every
    image that leaves, before its folders do.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: int,
        in_use: Callable[[], Collection[str]] = frozenset,
        gone: Callable[[str], None] = lambda _digest: None,
    ) -> None:
        self.folder = folder
        self._layers, self._images = folder / "layers", folder / "images"
        self._limit_bytes = limit_bytes
        self._in_use, self._gone = in_use, gone
        self._lock = threading.RLock()
        self._pending: dict[str, int] = {}  # unpacked, and of no recorded image yet: their sizes
        for each in (self._layers, self._images):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._layers.glob("tmp-*"):
            shutil.rmtree(left, ignore_errors=True)

    def missing(self, image: Image) -> tuple[Layer, ...]:
        """The layers that must still be unpacked; those that are here stay until ``record``."""
        with self._lock:
            sizes = self._sizes()
            for layer in image.layers:
                if self._folder(layer.diff_id).is_dir():
                    self._pending.setdefault(layer.diff_id, sizes.get(layer.diff_id, 0))
        wanted = {x.diff_id: x for x in image.layers if not self._folder(x.diff_id).is_dir()}
        return tuple(wanted.values())

    def unpack(self, layer: Layer, blob: Path) -> None:
        """A layer's blob becomes its folder; checked against its digest.

        Raises:
            Precondition: NEEDS_ROOT, NO_UNPACKER. Invalid: LAYER_CORRUPT.
            TooLarge: IMAGE_TOO_LARGE.
        """
        if os.geteuid() != 0:
            raise Precondition(
                "Images can only be unpacked by root: files keep their owners.",
                reason="NEEDS_ROOT",
                field="image",
                remedy="Run the agent as root, or use a prepared environment instead of an image.",
            )
        work = Path(tempfile.mkdtemp(prefix="tmp-", dir=self._layers))
        try:
            size = layers.unpack(layer, blob, work / "tree", self._limit_bytes)
            with self._lock:
                if not self._folder(layer.diff_id).is_dir():
                    (work / "tree").rename(self._folder(layer.diff_id))
                self._pending[layer.diff_id] = size
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def record(self, image: Image) -> Held:
        """The image is whole: from now on it is here; others may have to leave for it.

        Raises:
            Missing: IMAGE_NOT_HELD; a layer was not unpacked.
        """
        with self._lock:
            sizes = self._sizes() | self._pending
            record = {
                "image": asdict(image),
                "bytes": {x.diff_id: sizes.get(x.diff_id, 0) for x in image.layers},
            }
            path = self._path(image.digest)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(record), "utf-8")
            part.replace(path)
            for layer in image.layers:
                self._pending.pop(layer.diff_id, None)
            found = self.get(image.digest)
            self._collect({image.digest})
        return found

    def get(self, digest: str) -> Held:
        """An image that is here; it counts as used now.

        Raises:
            Missing: IMAGE_NOT_HELD.
        """
        found = self._known(digest)
        if found is None:
            raise Missing(
                f"The image {digest} is not on this node.", reason="IMAGE_NOT_HELD", field="image"
            )
        return found

    def held(self) -> tuple[str, ...]:
        """Digests of all images here, the most recently used first."""
        paths = sorted(self._images.glob("*.json"), key=_used_ns, reverse=True)
        return tuple(f"sha256:{path.stem}" for path in paths)

    def collect(self, spare: Collection[str] = ()) -> tuple[str, ...]:
        """Let images go until the rest is within the limit; which went."""
        with self._lock:
            return self._collect(spare)

    def room(self) -> int:
        """Bytes that layers may still take without any image having to leave."""
        with self._lock:
            return max(0, self._limit_bytes - self._total())

    @contextlib.contextmanager
    def standing(self) -> Iterator[None]:
        """No image leaves while this is held."""
        with self._lock:
            yield

    def _collect(self, spare: Collection[str]) -> tuple[str, ...]:
        gone: list[str] = []
        if self._total() > self._limit_bytes:
            used = {*spare, *self._in_use()}
            for digest in reversed(self.held()):
                if self._total() <= self._limit_bytes:
                    break
                if digest not in used:
                    self._gone(digest)
                    self._path(digest).unlink()
                    gone.append(digest)
                    self._drop_orphans()
                    _LOG.info("an image left the node", extra={"image": digest})
        self._drop_orphans()
        return tuple(gone)

    def _known(self, digest: str) -> Held | None:
        record = self._record(digest)
        if record is None:
            return None
        table = record["image"]
        image = Image(
            table["digest"],
            tuple(Layer(**layer) for layer in table["layers"]),
            env=tuple(table["env"]),
            entrypoint=tuple(table["entrypoint"]),
            cmd=tuple(table["cmd"]),
            cwd=table["cwd"],
            user=table.get("user", ""),
        )
        lowers = tuple(self._folder(layer.diff_id) for layer in reversed(image.layers))
        if not all(lower.is_dir() for lower in lowers):
            self._path(digest).unlink(missing_ok=True)  # somebody removed a folder: pull again
            return None
        os.utime(self._path(digest))
        return Held(image, lowers, sum(record["bytes"].values()))

    def _record(self, digest: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self._path(digest).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def _sizes(self) -> dict[str, int]:
        """Of every layer that an image here needs, unpacked."""
        sizes: dict[str, int] = {}
        for digest in self.held():
            record = self._record(digest)
            sizes |= record["bytes"] if record is not None else {}
        return sizes

    def _total(self) -> int:
        return sum(self._sizes().values())

    def _drop_orphans(self) -> None:
        """Folders of layers that no image needs."""
        needed = {diff_id.partition(":")[2] for diff_id in (*self._sizes(), *self._pending)}
        for folder in self._layers.iterdir():
            if not folder.name.startswith("tmp-") and folder.name not in needed:
                gone = folder.with_name(f"tmp-{folder.name}")
                folder.rename(gone)  # at once out of sight, whatever happens next
                shutil.rmtree(gone, ignore_errors=True)

    def _folder(self, diff_id: str) -> Path:
        return self._layers / diff_id.partition(":")[2]

    def _path(self, digest: str) -> Path:
        return self._images / f"{digest.partition(':')[2]}.json"


def _used_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
