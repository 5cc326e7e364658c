"""AccessService: who calls, tenants, projects and keys."""

from __future__ import annotations

import datetime
import secrets

from google.protobuf.message import Message
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease_kernel.clock import Clock
from gridlease_kernel.faults import Exists, Forbidden, Invalid
from gridlease_kernel.ids import Ids

from gridlease_gateway.calls import Call
from gridlease_gateway.domain import keys, names
from gridlease_gateway.domain.keys import Caller, KeyRecord, Role
from gridlease_gateway.guard import Guard
from gridlease_gateway.ports import AccessStore, NewKey

_ROLES = {Role.TENANT: pb.ROLE_TENANT, Role.OPERATOR: pb.ROLE_OPERATOR}
_ALL = "-"
_LONGEST_MS = 3_153_600_000_000  # a hundred years; beyond, dates end


def new_key(
    ids: Ids,
    role: Role,
    project: str | None,
    display_name: str,
    expire_time: datetime.datetime | None = None,
) -> tuple[NewKey, str]:
    """A fresh key as it is kept, and as its owner gets it, once."""
    key_id = ids.new("k")
    secret = secrets.token_hex(32)
    record = NewKey(
        id=key_id,
        secret_sha256=keys.digest_of(secret),
        role=role.value,
        project=project,
        display_name=display_name,
        expire_time=expire_time,
    )
    return record, keys.written(key_id, secret)


class Access:
    """The methods of AccessService."""

    def __init__(self, store: AccessStore, guard: Guard, ids: Ids, clock: Clock) -> None:
        self._store = store
        self._guard = guard
        self._ids = ids
        self._clock = clock

    async def get_caller(self, call: Call, _request: pb.GetCallerRequest) -> Message:
        caller = call.caller
        return pb.GetCallerResponse(
            tenant=caller.tenant,
            project=caller.project,
            role=_ROLES[caller.role],
            key=f"keys/{caller.key_id}",
        )

    async def create_tenant(self, _call: Call, request: pb.CreateTenantRequest) -> Message:
        tenant, project = request.tenant_id, request.project_id or request.tenant_id
        if not await self._store.add_tenant(tenant, project):
            raise Exists(
                f"The tenant {tenant!r} or the project {project!r} is there already.",
                reason="TENANT_EXISTS",
                field="tenant_id",
                remedy="Choose another id.",
            )
        return pb.CreateTenantResponse(tenant=f"tenants/{tenant}", project=f"projects/{project}")

    async def create_api_key(self, call: Call, request: pb.CreateApiKeyRequest) -> Message:
        role = Role.OPERATOR if request.role == pb.ROLE_OPERATOR else Role.TENANT
        project = await self._project(call.caller, role, request.project)
        expire_time = None
        if request.ttl_ms:
            ttl_ms = min(request.ttl_ms, _LONGEST_MS)
            expire_time = self._clock.wall() + datetime.timedelta(milliseconds=ttl_ms)
        name = request.display_name.replace("\0", "")
        key, written = new_key(self._ids, role, project, name, expire_time)
        record = await self._store.add_key(key)
        return pb.CreateApiKeyResponse(api_key=_encode(record), secret=written)

    async def list_api_keys(self, call: Call, request: pb.ListApiKeysRequest) -> Message:
        if call.caller.role is Role.OPERATOR and request.project in ("", _ALL):
            found = await self._store.keys(None)
        else:
            found = await self._store.keys(
                await self._project(call.caller, Role.TENANT, request.project)
            )
        return pb.ListApiKeysResponse(api_keys=[_encode(it) for it in found])

    async def revoke_api_key(self, call: Call, request: pb.RevokeApiKeyRequest) -> Message:
        key_id = names.id_of(request.name, "keys")
        own = None
        if call.caller.role is not Role.OPERATOR:
            own = call.caller.own_project().removeprefix("projects/")
        record = await self._store.revoke(key_id, own) if key_id else None
        if record is None:
            raise names.no_key(request.name)
        self._guard.forget(record.id)
        return pb.RevokeApiKeyResponse(api_key=_encode(record))

    async def _project(self, caller: Caller, role: Role, name: str) -> str | None:
        """The id of the project that a key is for; None for an operator's.

        Raises:
            Forbidden: OPERATORS_ONLY.
            Missing: PROJECT_NOT_FOUND, also for another tenant's.
            Invalid: PROJECT_MISSING.
        """
        if role is Role.OPERATOR:
            if caller.role is not Role.OPERATOR:
                raise Forbidden(
                    "Only operators make operators' keys.",
                    reason="OPERATORS_ONLY",
                    field="role",
                    remedy="Leave the role out for a key of your own project.",
                )
            return None
        if caller.role is not Role.OPERATOR:
            if name not in ("", caller.project):
                raise names.no_project(name, "project")
            return caller.project.removeprefix("projects/")
        if not name:
            raise Invalid(
                "An operator's key belongs to no project.",
                reason="PROJECT_MISSING",
                field="project",
                remedy='Name one, as "projects/{project}".',
            )
        project = names.id_of(name, "projects")
        if project is None or await self._store.tenant_of(project) is None:
            raise names.no_project(name, "project")
        return project


def _encode(record: KeyRecord) -> pb.ApiKey:
    key = pb.ApiKey(
        name=f"keys/{record.id}",
        project=f"projects/{record.project}" if record.project else "",
        role=_ROLES[record.role],
        display_name=record.display_name,
    )
    key.create_time.FromDatetime(record.create_time)
    if record.expire_time is not None:
        key.expire_time.FromDatetime(record.expire_time)
    if record.revoke_time is not None:
        key.revoke_time.FromDatetime(record.revoke_time)
    return key
