"""A registry, asked over HTTP: manifests and blobs, each checked against its digest.

Blocking, for threads; the standard library's client alone. Anonymous or with one name and
password; a bearer token is fetched where the registry asks for one.

Source: OCI distribution specification 1.1; "Token Authentication Specification" of distribution.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridlease_kernel.faults import Fault, Forbidden, Invalid, Missing, TooLarge, Unreachable

from gridlease_agent.images.manifest import INDEXES, MANIFESTS
from gridlease_agent.images.reference import Reference

_PIECE_BYTES = 1 << 18
_MANIFEST_BYTES = 4 << 20
_REDIRECTS = 5
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Login:
    """Who asks, where a registry wants to know."""

    name: str = ""
    password: str = ""


class Registry:
    """One repository of one registry; for one thread at a time."""

    def __init__(
        self, reference: Reference, login: Login | None = None, timeout_s: float = 30.0
    ) -> None:
        self._reference = reference
        self._login = login or Login()
        self._timeout_s = timeout_s
        self._token = ""
        host = reference.registry.rpartition(":")[0] or reference.registry
        # Plain HTTP only to this very host: a name elsewhere could be answered by anybody.
        self._base = ("http" if host in _LOOPBACK else "https") + f"://{reference.registry}"

    def manifest(self, version: str) -> tuple[str, dict[str, Any]]:
        """A manifest or index, with its digest; checked where ``version`` is one.

        Raises:
            Missing: IMAGE_NOT_FOUND. Forbidden: IMAGE_FORBIDDEN. Unreachable: REGISTRY_AWAY.
            Invalid: IMAGE_CORRUPT.
        """
        path = f"/v2/{self._reference.repository}/manifests/{version}"
        body = self._read(path, {"Accept": ", ".join((*INDEXES, *MANIFESTS))}, _MANIFEST_BYTES)
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if version.startswith("sha256:") and version != digest:
            raise _corrupt(f"the manifest {version}")
        try:
            found = json.loads(body)
        except ValueError as trouble:
            raise _corrupt("the manifest") from trouble
        if not isinstance(found, dict):
            raise _corrupt("the manifest")
        return digest, found

    def blob(self, digest: str, limit_bytes: int) -> bytes:
        """A small blob, checked."""
        body = self._read(self._blob_path(digest), {}, limit_bytes)
        if f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
            raise _corrupt(f"the blob {digest}")
        return body

    def fetch(self, digest: str, size_bytes: int, path: Path) -> None:
        """A blob into a file, checked; the file is whole or not there."""
        part = path.with_name(path.name + ".part")
        sha, size = hashlib.sha256(), 0
        try:
            with part.open("wb") as file:

                def take(piece: bytes) -> None:
                    nonlocal size
                    size += len(piece)
                    if size > size_bytes:
                        raise _corrupt(f"the layer {digest} (longer than its manifest says)")
                    sha.update(piece)
                    file.write(piece)

                self._stream(self._blob_path(digest), {}, take)
            if size != size_bytes or f"sha256:{sha.hexdigest()}" != digest:
                raise _corrupt(f"the layer {digest}")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _blob_path(self, digest: str) -> str:
        return f"/v2/{self._reference.repository}/blobs/{digest}"

    def _read(self, path: str, headers: Mapping[str, str], limit_bytes: int) -> bytes:
        body = bytearray()

        def take(piece: bytes) -> None:
            body.extend(piece)
            if len(body) > limit_bytes:
                raise TooLarge(
                    f"An answer of the registry exceeds {limit_bytes} bytes.",
                    reason="IMAGE_TOO_LARGE",
                    field="image",
                )

        self._stream(path, headers, take)
        return bytes(body)

    def _stream(self, path: str, headers: Mapping[str, str], take: Callable[[bytes], None]) -> None:
        """The body of a GET, piece by piece, after redirects and with a token if one is wanted."""
        url, asked_for_token = self._base + path, False
        for _ in range(_REDIRECTS):
            place = urllib.parse.urlsplit(url)
            opened = contextlib.ExitStack()
            connection = opened.enter_context(contextlib.closing(self._connection(place)))
            try:
                own = url.startswith(self._base + "/")
                given = dict(headers) | (self._authorization() if own else {})
                target = place.path + (f"?{place.query}" if place.query else "")
                connection.request("GET", target, headers=given)
                answer = opened.enter_context(connection.getresponse())
                if answer.status in (301, 302, 303, 307, 308):
                    url = urllib.parse.urljoin(url, answer.headers.get("Location", ""))
                    self._keep_safe(url)
                    continue
                if answer.status == 401 and not asked_for_token:
                    asked_for_token = True
                    self._token = self._ask_token(answer.headers.get("WWW-Authenticate", ""))
                    continue
                if answer.status != 200:
                    raise self._refusal(answer.status)
                while piece := answer.read(_PIECE_BYTES):
                    take(piece)
                return
            except (OSError, http.client.HTTPException) as trouble:
                raise self._away(str(trouble) or type(trouble).__name__) from trouble
            finally:
                opened.close()
        raise self._away("it redirects on and on")

    def _connection(self, place: urllib.parse.SplitResult) -> http.client.HTTPConnection:
        kind = (
            http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        )
        return kind(place.hostname or "", place.port, timeout=self._timeout_s)

    def _keep_safe(self, url: str) -> None:
        place = urllib.parse.urlsplit(url)
        if place.scheme != "https" and not (
            place.scheme == "http" and self._base.startswith("http:")
            and place.hostname in ("localhost", "127.0.0.1", "::1")
        ):  # fmt: skip
            raise self._away(
                f"it redirects to {place.scheme}://{place.hostname}, which is not safe"
            )

    def _authorization(self) -> dict[str, str]:
        if self._token:
            return {"Authorization": f"Bearer {self._token}"}
        return self._basic()

    def _basic(self) -> dict[str, str]:
        if not self._login.name:
            return {}
        pair = f"{self._login.name}:{self._login.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}

    def _ask_token(self, challenge: str) -> str:
        words = dict(_CHALLENGE.findall(challenge))
        if not challenge.startswith("Bearer ") or "realm" not in words:
            raise self._refusal(401)
        self._keep_safe(words["realm"])
        query = {key: words[key] for key in ("service", "scope") if key in words}
        query.setdefault("scope", f"repository:{self._reference.repository}:pull")
        place = urllib.parse.urlsplit(words["realm"])
        target = f"{place.path}?{urllib.parse.urlencode(query)}"
        opened = contextlib.ExitStack()
        connection = opened.enter_context(contextlib.closing(self._connection(place)))
        try:
            connection.request("GET", target, headers=self._basic())
            answer = opened.enter_context(connection.getresponse())
            if answer.status != 200:
                raise self._refusal(401)
            table = json.loads(answer.read(_MANIFEST_BYTES))
            return str(table.get("token") or table["access_token"])
        except (ValueError, KeyError) as trouble:
            raise self._refusal(401) from trouble
        finally:
            opened.close()

    def _refusal(self, status: int) -> Fault:
        where = f"{self._reference.registry}/{self._reference.repository}"
        if status == 404:
            return Missing(
                f"There is no image {self._reference}.",
                reason="IMAGE_NOT_FOUND",
                field="image",
                remedy="Check its name and tag, and whether it was pushed.",
            )
        if status in (401, 403):
            return Forbidden(
                f"The registry does not let this node read {where}.",
                reason="IMAGE_FORBIDDEN",
                field="image",
                remedy="Give the node a login for that registry, or make the image readable.",
            )
        if status == 429 or status >= 500:
            return self._away(f"it answers {status}")
        return _corrupt(f"the answer of {where} (status {status})")

    def _away(self, why: str) -> Unreachable:
        return Unreachable(
            f"The registry {self._reference.registry} cannot be used now: {why}.",
            reason="REGISTRY_AWAY",
            field="image",
            remedy="It is tried again; check the registry and the node's network.",
        )


def _corrupt(what: str) -> Invalid:
    return Invalid(
        f"What came is not what its digest says: {what}.",
        reason="IMAGE_CORRUPT",
        field="image",
        remedy="Push the image again; if this stays, look at what lies between node and registry.",
    )
