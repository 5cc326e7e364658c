"""Where the door is and with which key to come in.

In this order: what is given, GRIDLEASE_ENDPOINT and GRIDLEASE_API_KEY, the client file that the
platform's first start wrote (GRIDLEASE_CLIENT_FILE, else .state/main/client.json).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gridlease_kernel.faults import Invalid, Precondition, Unauthenticated

DEFAULT_FILE = Path(".state/main/client.json")


@dataclass(frozen=True, slots=True)
class Where:
    """An endpoint ("host:port", or "https://host:port") and an API key."""

    endpoint: str
    api_key: str


def find(
    environ: Mapping[str, str],
    *,
    endpoint: str = "",
    api_key: str = "",
    client_file: Path | None = None,
    operator: bool = False,
) -> Where:
    """The place and the key; ``operator`` takes the operator's key of the client file.

    Raises:
        Precondition: ENDPOINT_UNKNOWN.
        Unauthenticated: KEY_MISSING.
        Invalid: CLIENT_FILE_BROKEN.
    """
    endpoint = endpoint or environ.get("GRIDLEASE_ENDPOINT", "")
    api_key = api_key or environ.get("GRIDLEASE_API_KEY", "")
    named = client_file or _path(environ.get("GRIDLEASE_CLIENT_FILE", ""))
    path = named or DEFAULT_FILE
    kept: dict[str, str] = {}
    if (not endpoint or not api_key) and (named is not None or path.exists()):
        kept = _read(path)
    endpoint = endpoint or kept.get("endpoint", "")
    api_key = api_key or kept.get("operator_key" if operator else "tenant_key", "")
    if not endpoint:
        raise Precondition(
            "It is not known where the platform is.",
            reason="ENDPOINT_UNKNOWN",
            field="endpoint",
            remedy="Give --endpoint host:port, or GRIDLEASE_ENDPOINT, or start it: ./dev up.",
        )
    if not api_key:
        raise Unauthenticated(
            "There is no API key to come in with.",
            reason="KEY_MISSING",
            field="api_key",
            remedy="Give --api-key, or GRIDLEASE_API_KEY, or --client-file.",
        )
    if not (api_key.isascii() and api_key.isprintable()):
        raise Unauthenticated(
            "That is not an API key.",
            reason="KEY_MALFORMED",
            field="api_key",
            remedy="A key reads gl_<id>_<64 hex digits>; copy it whole.",
        )
    return Where(endpoint, api_key.strip())


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _read(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Invalid(
            f"The client file {path} cannot be read: {error}",
            reason="CLIENT_FILE_BROKEN",
            field="client_file",
            remedy="Name the file that the platform wrote at its first start.",
        ) from error
    if not isinstance(content, dict):
        raise Invalid(
            f"The client file {path} holds no object.",
            reason="CLIENT_FILE_BROKEN",
            field="client_file",
            remedy="Name the file that the platform wrote at its first start.",
        )
    return {str(key): str(value) for key, value in content.items()}
