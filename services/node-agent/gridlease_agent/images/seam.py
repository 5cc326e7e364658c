"""What the core asks of the images of its node; ``images.roots`` answers, as root."""

from __future__ import annotations

from typing import Protocol

from gridlease_agent.images.manifest import Image, Layer
from gridlease_agent.images.roots import Root


class Images(Protocol):
    """The images of a node, as whoever may not unpack them asks for them; see ``images.roots``.

    ``unpack`` takes the blob from the folder that both know, under its digest.
    """

    def missing(self, image: Image) -> tuple[Layer, ...]: ...
    def unpack(self, layer: Layer) -> None: ...
    def record(self, image: Image) -> None: ...
    def held(self) -> tuple[str, ...]: ...
    def room(self) -> int: ...
    def ready(self, digest: str, lease_id: str) -> Root: ...
