"""Webhooks: which addresses may be called, how a request is signed, and when it is tried again.

Source: Standard Webhooks 1.0 (headers, signature); OWASP, Server-Side Request Forgery Prevention.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass

from gridlease_kernel.faults import Invalid

MOST_TRIES = 12  # of one event: about 13 hours in all; then it is given up
_FIRST_PAUSE_S = 2
_LAST_PAUSE_S = 14_400
_WELL_KNOWN_PORTS = 1_024
_HTTPS = 443
# Addresses that carry another address inside: what they lead to cannot be told from here.
_CARRIERS = tuple(
    ipaddress.ip_network(it) for it in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)


@dataclass(frozen=True, slots=True)
class Target:
    """An address to call, taken apart."""

    secure: bool
    host: str
    port: int
    path: str  # with its query


def target_of(url: str, *, local: bool) -> Target:
    """Where a URL leads. ``local``: plain HTTP and this host's addresses are allowed (tests).

    Raises:
        Invalid: WEBHOOK_URL_REFUSED.
    """
    if any(ord(it) <= 0x20 or ord(it) >= 0x7F for it in url) or "\\" in url:
        raise _refused("holds characters that a URL has not")
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused("is none") from error
    secure = parts.scheme == "https"
    if not secure and not (local and parts.scheme == "http"):
        raise _refused("is not https://")
    if not parts.hostname or "@" in parts.netloc or parts.fragment:
        raise _refused("names no host alone: a name, a password or a fragment is in it")
    port = port or (_HTTPS if secure else 80)
    if port < _WELL_KNOWN_PORTS and port != _HTTPS and not local:
        raise _refused("is at a port of another service")
    if _is_literal(parts.hostname) and not local and not is_public(parts.hostname):
        raise _refused("is an address that is not public")
    path = parts.path or "/"
    return Target(secure, parts.hostname, port, path + (f"?{parts.query}" if parts.query else ""))


def pick(addresses: Sequence[str], *, local: bool) -> str:
    """The one address to connect to, of all that a name led to, once.

    One address that is not public condemns the name: who answers so has something in mind.

    Raises:
        Invalid: WEBHOOK_URL_REFUSED.
    """
    if not addresses:
        raise _refused("leads nowhere")
    if not local:
        for each in addresses:
            if not is_public(each):
                raise _refused("leads to an address that is not public")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether anybody on the internet could have that address.

    >>> is_public("8.8.8.8"), is_public("::ffff:10.0.0.1"), is_public("169.254.169.254")
    (True, False, False)
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if found.scope_id is not None or found.is_site_local:
            return False
        if any(found in net for net in _CARRIERS) or int(found) >> 32 == 0:
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved)


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The header that proves who sent a message, and when."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def secret_text(secret: bytes) -> str:
    """A secret as its owner keeps it."""
    return "whsec_" + base64.b64encode(secret).decode()


def pause_s(failures: int) -> int:
    """How long to wait after so many failed tries of one event.

    >>> [pause_s(n) for n in (1, 2, 3, 12)]
    [2, 6, 18, 14400]
    """
    assert failures > 0, failures
    longest: int = _FIRST_PAUSE_S * 3 ** (failures - 1)
    return min(_LAST_PAUSE_S, longest)


def wanted(types: Sequence[str], kind: str) -> bool:
    """Whether an event of that type is sent."""
    return not types or any(kind.startswith(each) for each in types)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _refused(why: str) -> Invalid:
    return Invalid(
        f"This URL {why}.",
        reason="WEBHOOK_URL_REFUSED",
        field="url",
        remedy="Name an https:// address of a public host.",
    )
