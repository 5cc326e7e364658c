"""A loopback OCI registry for tests: real HTTP, content by digest, faults on request."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass
class LoopbackRegistry:
    """What it serves. ``faults``: path's end -> status to answer once; ``token``: is asked for."""

    address: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # version -> type, body
    faults: dict[str, int] = field(default_factory=dict)
    token: str = ""
    asked: list[str] = field(default_factory=list)

    def add_blob(self, content: bytes) -> str:
        """Its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return digest

    def add_manifest(self, table: dict[str, Any], media_type: str, *tags: str) -> str:
        """Its digest."""
        body = json.dumps(table).encode()
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        for version in (digest, *tags):
            self.manifests[version] = (media_type, body)
        return digest

    def add_image(
        self, *layers: bytes, tag: str = "v1", compression: str = "gzip", **config: Any
    ) -> str:
        """An image of these tars; the manifest's digest."""
        entries = []
        for tar in layers:
            blob = compressed(tar, compression)
            kind = _LAYER + (f"+{compression}" if compression else "")
            digest = self.add_blob(blob)
            entries.append({"mediaType": kind, "digest": digest, "size": len(blob)})
        diff_ids = [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in layers]
        table = {"rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": config}
        body = json.dumps(table).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"digest": self.add_blob(body), "size": len(body)},
            "layers": entries,
        }
        return self.add_manifest(manifest, MANIFEST, tag)


def compressed(tar: bytes, compression: str) -> bytes:
    """A tar as a layer's blob."""
    if compression == "zstd":
        return subprocess.run(["zstd", "-qc"], input=tar, capture_output=True, check=True).stdout
    return gzip.compress(tar, 1) if compression == "gzip" else tar


def tar_of(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    """A tar of files and of entries as given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                name, content = member
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def entry(name: str, kind: bytes, target: str = "", numbers: tuple[int, int] = (0, 0)) -> Any:
    """A link, folder or device for ``tar_of``."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.devmajor, info.devminor = numbers
    info.mode = 0o755
    return info


@contextlib.contextmanager
def loopback_registry() -> Iterator[LoopbackRegistry]:
    """A registry on a free port of the loopback interface."""
    served = LoopbackRegistry()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            status, kind, body, more = _answer(served, self.path, dict(self.headers))
            self.send_response(status)
            for name, text in more.items():
                self.send_header(name, text)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests say enough."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    served.address = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(
    served: LoopbackRegistry, path: str, headers: dict[str, str]
) -> tuple[int, str, bytes, dict[str, str]]:
    for end, status in list(served.faults.items()):
        if path.endswith(end):
            del served.faults[end]
            return status, "text/plain", b"", {}
    if path.startswith("/token"):
        return 200, "application/json", json.dumps({"token": served.token}).encode(), {}
    if served.token and headers.get("Authorization") != f"Bearer {served.token}":
        realm = f'Bearer realm="http://{served.address}/token",service="loopback"'
        return 401, "text/plain", b"", {"WWW-Authenticate": realm}
    _head, _slash, version = path.rpartition("/")
    if "/manifests/" in path and version in served.manifests:
        kind, body = served.manifests[version]
        return 200, kind, body, {}
    if "/blobs/" in path and version in served.blobs:
        return 200, "application/octet-stream", served.blobs[version], {}
    return 404, "text/plain", b"", {}
