"""An image's name, as people write it, taken apart.

>>> parse("registry.example:5000/team/app:v1").repository
'team/app'
>>> parse("registry.example/app@sha256:" + "0" * 64).digest[:10]
'sha256:000'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gridlease_kernel.faults import Invalid

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Source: distribution's reference grammar (repository components and tags).
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"(?:[A-Za-z0-9-]+\.)*[A-Za-z0-9-]+(?::\d{1,5})?|\[[0-9a-f:]+\](?::\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image is: its registry, repository, and a digest or a tag."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def version(self) -> str:
        """What its manifest is asked for by: the digest if there is one."""
        return self.digest or self.tag


def is_digest(text: str) -> bool:
    """Is it "sha256:" and 64 hex digits?"""
    return _DIGEST.fullmatch(text) is not None


def parse(text: str) -> Reference:
    """An image's name taken apart.

    Raises:
        Invalid: BAD_IMAGE_NAME. A registry is never guessed: the name must say which.
    """
    rest, _at, digest = text.partition("@")
    registry, _slash, path = rest.partition("/")
    repository, _colon, tag = path.partition(":")
    host = _HOST.fullmatch(registry) and (
        "." in registry or ":" in registry or registry == "localhost"
    )
    if not host or not _REPOSITORY.fullmatch(repository):
        raise _bad(text, "it names no registry and repository")
    if digest and not is_digest(digest):
        raise _bad(text, "what follows the @ is no sha256 digest")
    if tag and not _TAG.fullmatch(tag):
        raise _bad(text, "what follows the : is no tag")
    return Reference(registry, repository, tag or ("" if digest else "latest"), digest)


def _bad(text: str, why: str) -> Invalid:
    return Invalid(
        f"{text!r} is no image's name: {why}.",
        reason="BAD_IMAGE_NAME",
        field="image",
        remedy="Write it as registry.example/team/app:v1 or registry.example/team/app@sha256:….",
    )
