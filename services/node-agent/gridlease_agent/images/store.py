"""Images on this node: layers by digest, shared among images, collected by space and use.

    STORE/layers/<diff id>/      one folder a layer, read-only from then on
    STORE/images/<digest>.json   which layers, and how it is run; touched when it is used

A layer's folder appears by a rename once it is whole, so a crash leaves nothing half. What an
image that is used needs is never collected; of the others the least recently used leaves first.
"""

from __future__ import annotations

import concurrent.futures
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Missing, Precondition

from gridlease_agent.images import layers, manifest
from gridlease_agent.images.manifest import Image, Layer
from gridlease_agent.images.reference import Reference
from gridlease_agent.images.registry import Registry

_LOG = logging.getLogger(__name__)
_CONFIG_BYTES = 4 << 20
_AT_ONCE = 3


@dataclass(frozen=True, slots=True)
class Held:
    """An image that is ready: its folders from the top layer down, as overlayfs names them."""

    image: Image
    lowers: tuple[Path, ...]
    unpacked_bytes: int


class ImageStore:
    """Blocking; one process. ``limit_bytes``: what all layers may take, unpacked."""

    def __init__(self, folder: Path, limit_bytes: int, machine: str = os.uname().machine) -> None:
        self._layers, self._images = folder / "layers", folder / "images"
        self._limit_bytes = limit_bytes
        self._machine = machine
        self._turn = threading.Lock()  # between fetch and record a layer belongs to no image
        for each in (self._layers, self._images):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._layers.glob("tmp-*"):
            shutil.rmtree(left, ignore_errors=True)

    def pull(self, reference: Reference, registry: Registry, used: Collection[str] = ()) -> Held:
        """The image, fetched and unpacked as far as it is not here.

        Args:
            used: digests of images that must stay.

        Raises:
            Fault: of the registry or of a layer; Precondition: NEEDS_ROOT.
        """
        if os.geteuid() != 0:
            raise Precondition(
                "Images can only be unpacked by root: files keep their owners.",
                reason="NEEDS_ROOT",
                field="image",
                remedy="Run the agent as root, or use a prepared environment instead of an image.",
            )
        with self._turn:
            return self._pull(reference, registry, used)

    def _pull(self, reference: Reference, registry: Registry, used: Collection[str]) -> Held:
        if reference.digest and (known := self._known(reference.digest)) is not None:
            return known
        image = self._resolve(reference, registry)
        if (known := self._known(image.digest)) is not None:
            return known
        sizes = self._fetch(image, registry)
        record = {"image": asdict(image), "bytes": sizes}
        path = self._path(image.digest)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(record), "utf-8")
        part.replace(path)
        self._collect({*used, image.digest})
        found = self._known(image.digest)
        assert found is not None
        return found

    def get(self, digest: str) -> Held:
        """An image that is here.

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

    def collect(self, used: Collection[str] = ()) -> tuple[str, ...]:
        """Let images go until the rest is within the limit; which went."""
        with self._turn:
            return self._collect(used)

    def _collect(self, used: Collection[str]) -> tuple[str, ...]:
        gone = []
        for digest in reversed(self.held()):
            if self._total() <= self._limit_bytes:
                break
            if digest not in used:
                self._path(digest).unlink()
                gone.append(digest)
                self._drop_orphans()
                _LOG.info("an image left the node", extra={"image": digest})
        self._drop_orphans()
        return tuple(gone)

    def _resolve(self, reference: Reference, registry: Registry) -> Image:
        digest, found = registry.manifest(reference.version)
        if "manifests" in found:
            digest, found = registry.manifest(manifest.choose(found, self._machine))
        config = registry.blob(manifest.config_digest(found), _CONFIG_BYTES)
        return manifest.image(digest, found, config)

    def _fetch(self, image: Image, registry: Registry) -> dict[str, int]:
        """Every layer that is not here, some at once; sizes unpacked, by diff id."""
        sizes: dict[str, int] = {}
        missing = {x.diff_id: x for x in image.layers if not self._folder(x.diff_id).is_dir()}
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE, "layer") as pool:
            found = pool.map(lambda layer: self._one(layer, registry), missing.values())
            sizes |= dict(zip(missing, found, strict=True))
        recorded = self._sizes()
        return {x.diff_id: sizes.get(x.diff_id, recorded.get(x.diff_id, 0)) for x in image.layers}

    def _one(self, layer: Layer, registry: Registry) -> int:
        work = Path(tempfile.mkdtemp(prefix="tmp-", dir=self._layers))
        try:
            registry.fetch(layer.digest, layer.size_bytes, work / "blob")
            size = layers.unpack(layer, work / "blob", work / "tree", self._limit_bytes)
            if not self._folder(layer.diff_id).is_dir():
                (work / "tree").rename(self._folder(layer.diff_id))
            return size
        finally:
            shutil.rmtree(work, ignore_errors=True)

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
        needed = {diff_id.partition(":")[2] for diff_id in self._sizes()}
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
    return path.stat().st_mtime_ns
