"""What an image consists of: its manifest's layers and the part of its configuration that counts.

Source: OCI image specification 1.1 (manifest.md, image-index.md, config.md); the older names of
the same media types are Docker's, image manifest version 2, schema 2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gridlease_kernel.faults import Invalid, Precondition

from gridlease_agent.images.reference import is_digest

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_COMPRESSIONS = {"": "", "gzip": "gzip", "zstd": "zstd"}
MAX_LAYERS = 127
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's blob. ``compression``: gzip, zstd or none; ``diff_id``: digest once unpacked."""

    digest: str
    size_bytes: int
    compression: str
    diff_id: str


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest with its configuration. Layers from the lowest up.

    ``user``: as the image says it, a name or a number, with a group or without one.
    """

    digest: str
    layers: tuple[Layer, ...]
    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    cwd: str
    user: str = ""


def choose(index: Mapping[str, Any], machine: str) -> str:
    """The digest of an index's manifest for this machine.

    Raises:
        Precondition: NO_IMAGE_FOR_PLATFORM.
    """
    wanted = _ARCHITECTURES.get(machine, machine)
    offered = []
    for entry in index.get("manifests", ()):
        platform = entry.get("platform", {})
        if platform.get("os") == "linux" and platform.get("architecture") == wanted:
            return _checked(entry["digest"])
        offered.append(f"{platform.get('os', '?')}/{platform.get('architecture', '?')}")
    raise Precondition(
        f"The image is not made for linux/{wanted}; it offers {', '.join(offered) or 'nothing'}.",
        reason="NO_IMAGE_FOR_PLATFORM",
        field="image",
        remedy="Build the image for this architecture too, or ask for a chip of another.",
    )


def config_digest(manifest: Mapping[str, Any]) -> str:
    """The digest of the configuration's blob."""
    try:
        return _checked(manifest["config"]["digest"])
    except (KeyError, TypeError) as trouble:
        raise _odd("its manifest names no configuration") from trouble


def image(digest: str, manifest: Mapping[str, Any], config: bytes) -> Image:
    """Manifest and configuration as one value.

    Raises:
        Invalid: IMAGE_INVALID.
    """
    try:
        table = json.loads(config)
        diff_ids = table["rootfs"]["diff_ids"]
        entries = manifest["layers"]
        if len(diff_ids) != len(entries) or not 1 <= len(entries) <= MAX_LAYERS:
            raise _odd(f"it has {len(entries)} layers and {len(diff_ids)} of their digests")
        layers = tuple(
            Layer(
                _checked(entry["digest"]),
                int(entry["size"]),
                _compression(entry["mediaType"]),
                _checked(diff_id),
            )
            for entry, diff_id in zip(entries, diff_ids, strict=True)
        )
        run = table.get("config") or {}
        return Image(
            digest,
            layers,
            tuple(map(str, run.get("Env") or ())),
            tuple(map(str, run.get("Entrypoint") or ())),
            tuple(map(str, run.get("Cmd") or ())),
            str(run.get("WorkingDir") or "/"),
            str(run.get("User") or ""),
        )
    except (KeyError, TypeError, ValueError) as trouble:
        raise _odd(f"{type(trouble).__name__}: {trouble}") from trouble


def _compression(media_type: str) -> str:
    _head, _dot, tail = media_type.rpartition(".tar")
    found = (
        _COMPRESSIONS.get(tail.lstrip("+."))
        if "layer" in media_type or "diff" in media_type
        else None
    )
    if found is None:
        raise _odd(f"a layer of type {media_type}")
    return found


def _checked(digest: str) -> str:
    if not is_digest(digest):
        raise _odd(f"{digest!r} is no sha256 digest")
    return digest


def _odd(why: str) -> Invalid:
    return Invalid(
        f"The image cannot be used: {why}.",
        reason="IMAGE_INVALID",
        field="image",
        remedy="Push it again; layers may be plain, gzip or zstd.",
    )
