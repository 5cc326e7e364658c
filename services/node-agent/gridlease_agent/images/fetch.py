"""From an image's name to the image on this node: asked for, checked, handed on to be unpacked.

Needs no rights but the network and a folder: what must be done as root is the store's.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

from gridlease_agent.images import manifest, reference
from gridlease_agent.images.manifest import Image, Layer
from gridlease_agent.images.reference import Reference
from gridlease_agent.images.registry import Login, Registry
from gridlease_agent.images.roots import blob_name
from gridlease_agent.images.seam import Images

_CONFIG_BYTES = 4 << 20
_AT_ONCE = 4
_MOST_PINS = 1024
_MOST_NAMES = 512
_TURNS = 16
Logins = Callable[[str], Login]  # by registry


def no_login(_registry: str) -> Login:
    """Nobody is known anywhere."""
    return Login()


class Fetcher:
    """Blocking; images side by side, the same image once. ``folder``: for blobs on their way."""

    def __init__(
        self,
        folder: Path,
        store: Images,
        logins: Logins = no_login,
        machine: str = os.uname().machine,
        timeout_s: float = 30.0,
    ) -> None:
        self._folder = folder
        self._store = store
        self._logins = logins
        self._machine = machine
        self._timeout_s = timeout_s
        self._pins, self._named = folder / "pins.json", folder / "names.json"
        self._turn = threading.Lock()
        self._turns = tuple(threading.Lock() for _ in range(_TURNS))
        self._blobs = tuple(threading.Lock() for _ in range(_TURNS))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in folder.glob("sha256-*"):
            left.unlink()

    def pull(self, name: str, job: str = "", stop: threading.Event | None = None) -> str:
        """The digest of the image of that name, fetched as far as it is not here.

        Args:
            job: for whom; a tag means the same digest to all of one job's tasks and attempts.
            stop: when set, no further layer is begun.

        Raises:
            Fault: of the name, the registry, a layer or the store.
        """
        wanted = reference.parse(name)
        digest = self._pinned(job, wanted) or wanted.digest
        if digest and digest in self._store.held():
            return digest
        with self._turns[hash(name) % _TURNS]:
            found = self._pull(wanted, digest, stop)
        self._pin(job, wanted, found)
        self._name(str(wanted), found)
        return found

    def names(self) -> dict[str, str]:
        """What was fetched by which name, last of all: name -> digest, also of what has left."""
        try:
            found: dict[str, str] = json.loads(self._named.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found

    def _name(self, name: str, digest: str) -> None:
        with self._turn:
            known = self.names()
            if known.get(name) == digest:
                return
            newest = dict(list((known | {name: digest}).items())[-_MOST_NAMES:])
            part = self._named.with_suffix(".part")
            part.write_text(json.dumps(newest), "utf-8")
            part.replace(self._named)

    def _pull(self, wanted: Reference, digest: str, stop: threading.Event | None) -> str:
        image = self.resolve(self._registry(wanted), digest or wanted.version)
        if image.digest in self._store.held():
            return image.digest
        missing = sorted(self._store.missing(image), key=lambda x: x.size_bytes, reverse=True)
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE, "layer") as pool:
            list(pool.map(lambda layer: self._one(wanted, layer, stop), missing))
        self._store.record(image)
        return image.digest

    def resolve(self, registry: Registry, version: str) -> Image:
        """A tag's or a digest's image for this machine."""
        digest, found = registry.manifest(version)
        if "manifests" in found:
            digest, found = registry.manifest(manifest.choose(found, self._machine))
        config = registry.blob(manifest.config_digest(found), _CONFIG_BYTES)
        return manifest.image(digest, found, config)

    def _one(self, wanted: Reference, layer: Layer, stop: threading.Event | None) -> None:
        if stop is not None and stop.is_set():
            raise concurrent.futures.CancelledError
        path = self._folder / blob_name(layer)
        with self._blobs[hash(layer.digest) % _TURNS]:
            try:
                self._registry(wanted).fetch(layer.digest, layer.size_bytes, path)
                self._store.unpack(layer)
            finally:
                path.unlink(missing_ok=True)

    def _registry(self, wanted: Reference) -> Registry:
        return Registry(wanted, self._logins(wanted.registry), self._timeout_s)

    # -- what a tag meant ---------------------------------------------------------------------

    def _pinned(self, job: str, wanted: Reference) -> str:
        key = _pin_key(job, wanted)
        return self._read_pins().get(key, "") if key else ""

    def _pin(self, job: str, wanted: Reference, digest: str) -> None:
        key = _pin_key(job, wanted)
        if not key or digest == (self._pinned(job, wanted) or wanted.digest):
            return
        with self._turn:
            pins = self._read_pins() | {key: digest}
            newest = dict(list(pins.items())[-_MOST_PINS:])
            part = self._pins.with_suffix(".part")
            part.write_text(json.dumps(newest), "utf-8")
            part.replace(self._pins)

    def _read_pins(self) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads(self._pins.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found


def _pin_key(job: str, wanted: Reference) -> str:
    """A digest (of an index) means the same to everybody, a tag to one job; empty = no pin."""
    if wanted.digest:
        return str(wanted)
    return f"{job} {wanted}" if job else ""
