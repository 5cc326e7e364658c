"""API keys: ``gl_<id>_<secret>``, and who somebody is who shows one."""

from __future__ import annotations

import datetime
import enum
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from gridlease_kernel.faults import Forbidden, Precondition, Unauthenticated

_FORM: Final = re.compile(r"gl_([a-z0-9-]{4,40})_([0-9a-f]{64})")
_NOBODY: Final = bytes(32)  # compared with where no such key exists, so that both take as long


class Role(enum.Enum):
    """What a key may do."""

    ANYONE = "anyone"  # no key at all: only to join with a node's token
    TENANT = "tenant"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is kept; ``tenant`` and ``project`` are ids, empty for an operator's key."""

    id: str
    secret_sha256: bytes
    role: Role
    tenant: str
    project: str
    display_name: str
    create_time: datetime.datetime
    expire_time: datetime.datetime | None = None
    revoke_time: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, by the key alone; names as on the wire, empty where there is none."""

    role: Role
    key_id: str = ""
    tenant: str = ""
    project: str = ""

    def own_project(self) -> str:
        """ "projects/{project}" of the key.

        Raises:
            Precondition: NO_PROJECT: an operator's key has none.
        """
        if not self.project:
            raise _no_project()
        return self.project

    def own_tenant(self) -> str:
        """ "tenants/{tenant}" of the key.

        Raises:
            Precondition: NO_PROJECT: an operator's key has none.
        """
        if not self.tenant:
            raise _no_project()
        return self.tenant


NOBODY: Final = Caller(Role.ANYONE)


def digest_of(secret: str) -> bytes:
    """What is kept of a secret. 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def written(key_id: str, secret: str) -> str:
    """The key as its owner gets it, once."""
    return f"gl_{key_id}_{secret}"


def read_header(authorization: str) -> tuple[str, str]:
    """Key id and secret from "Bearer gl_…".

    Raises:
        Unauthenticated: KEY_MISSING or KEY_MALFORMED.
    """
    scheme, _, credential = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not credential:
        raise Unauthenticated(
            "This call needs an API key.",
            reason="KEY_MISSING",
            remedy='Send metadata "authorization: Bearer gl_…".',
        )
    found = _FORM.fullmatch(credential.strip())
    if found is None:
        raise Unauthenticated(
            "That is not an API key.",
            reason="KEY_MALFORMED",
            remedy="A key reads gl_<id>_<64 hex digits>; copy it whole.",
        )
    return found.group(1), found.group(2)


def identify(record: KeyRecord | None, secret: str, now: datetime.datetime) -> Caller:
    """Who shows ``secret`` for ``record``.

    Raises:
        Unauthenticated: KEY_UNKNOWN (also for a wrong secret), KEY_REVOKED or KEY_EXPIRED.
    """
    kept = record.secret_sha256 if record else _NOBODY
    same = hmac.compare_digest(kept, digest_of(secret))
    if record is None or not same:
        raise Unauthenticated(
            "This API key is not known.",
            reason="KEY_UNKNOWN",
            remedy="Ask the project's owner for a key, or an operator.",
        )
    if record.revoke_time is not None:
        raise Unauthenticated(
            "This API key was revoked.",
            reason="KEY_REVOKED",
            remedy="Use another key, or have one made: gridlease keys create.",
        )
    if record.expire_time is not None and record.expire_time <= now:
        raise Unauthenticated(
            "This API key has expired.",
            reason="KEY_EXPIRED",
            remedy="Use another key, or have one made: gridlease keys create.",
        )
    return Caller(
        role=record.role,
        key_id=record.id,
        tenant=f"tenants/{record.tenant}" if record.tenant else "",
        project=f"projects/{record.project}" if record.project else "",
    )


def allow(caller: Caller, needed: Role) -> None:
    """Let ``caller`` use a method that needs ``needed``; an operator may use any.

    Raises:
        Forbidden: OPERATORS_ONLY.
    """
    if needed is Role.OPERATOR and caller.role is not Role.OPERATOR:
        raise Forbidden(
            "Only operators may do this.",
            reason="OPERATORS_ONLY",
            remedy="Use an operator's key (--operator), or ask an operator.",
        )


def _no_project() -> Precondition:
    return Precondition(
        "This key belongs to no project.",
        reason="NO_PROJECT",
        remedy="Name the project, or use a tenant's key: operators' keys have none.",
    )
