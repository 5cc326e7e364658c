"""A sandbox whose root folder is an image's: nothing of the host's own programs is in it.

The places to mount at lie in the image's own top layer (``images.roots``), since nothing can be
made in a root that is read-only. Which places, the finished plan says: the standard ones, and
those of the lease's devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from gridlease_kernel.faults import Precondition

from gridlease_agent.images.roots import FILES, PLACES, Place, Root
from gridlease_agent.isolate.rootfs import HostRoot
from gridlease_agent.runtimes.spec import Mount, SandboxSpec

CRUN_ROOT = "bundle/rootfs"
BWRAP_ROOT = "root"
# Mounted anew in every sandbox: what is below is made in there.
_FRESH = ("/dev", "/proc", "/tmp")  # noqa: S108


class Roots(Protocol):
    """Who mounts images; see ``images.roots``."""

    def ready(self, digest: str, lease_id: str, places: tuple[Place, ...] = ()) -> Root: ...


class NoRoots:
    """Of a node that cannot mount any."""

    def ready(self, digest: str, lease_id: str, places: tuple[Place, ...] = ()) -> Root:
        """Never.

        Raises:
            Precondition: NEEDS_ROOT.
        """
        del lease_id, places
        raise Precondition(
            f"This node cannot show the image {digest}.",
            reason="NEEDS_ROOT",
            field="image",
            remedy="Run the agent as root, or use a prepared environment instead of an image.",
        )


def host_binds(spec: SandboxSpec, host: HostRoot) -> list[Mount]:
    """What of the host is shown: all that it offers, or nothing under an image."""
    return [] if spec.root else [Mount(source, target) for source, target in host.binds]


def rooted(plan: Mapping[str, Any], spec: SandboxSpec, roots: Roots) -> dict[str, Any]:
    """The launch plan, standing on the image that ``spec.root`` names by its digest.

    Raises:
        Fault: of ``roots``: the image is not here, cannot be mounted, or has no shell.
    """
    if not spec.root:
        return dict(plan)
    under = CRUN_ROOT if plan["runtime"] == "crun" else BWRAP_ROOT
    wanted = {place.path: place for place in _places(plan)}
    root = roots.ready(spec.root, spec.lease_id, tuple(wanted.values()))
    binds = [[root.folder, under, True], *plan["binds"]]
    return dict(plan) | {"binds": binds, "links": [], "files": _kept(plan)}


def _places(plan: Mapping[str, Any]) -> Iterator[Place]:
    """Where this sandbox mounts what not every one does."""
    stage = plan["stage"]
    sources = {f"{stage}/{path}": source for source, path, _ in plan["binds"]}
    for mount in (plan["oci"] or {"mounts": ()})["mounts"]:
        target, source = mount["destination"], sources.get(mount["source"], "")
        if target in PLACES or target.startswith(tuple(f"{one}/" for one in _FRESH)):
            continue
        yield Place(target, None if not source or Path(source).is_dir() else "")
    for path, text in plan["files"]:
        target = "/" + path.removeprefix(f"{CRUN_ROOT}/")
        if target in FILES:
            yield Place(target, text)


def _kept(plan: Mapping[str, Any]) -> list[list[str]]:
    """The files that do not belong into the root folder."""
    top = f"{CRUN_ROOT}/"
    return [
        [path, text]
        for path, text in plan["files"]
        if not path.startswith(top) and f"/{path}" not in FILES and not path.startswith("etc/")
    ]
