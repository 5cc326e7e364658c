"""The first start: an operator's key, a tenant, a project, its key, and some prepaid credit.

Secrets are written once, to a file only its owner reads. The file is complete on disk before the
keys are committed, and takes its name afterwards; a crash in between leaves a part file that the
next start finds and, if its keys are the ones in force, names.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from pathlib import Path

from gridlease.billing.v1 import account_pb2
from gridlease_kernel.faults import Fault, Precondition, Unauthenticated
from gridlease_kernel.ids import Ids

from gridlease_gateway.domain import keys
from gridlease_gateway.domain.keys import Role
from gridlease_gateway.inside import Inside
from gridlease_gateway.ports import AccessStore, FirstStartStore
from gridlease_gateway.rpc.access import new_key

_LOG = logging.getLogger(__name__)
TENANT = "demo"
PROJECT = "demo"
CREDIT_REQUEST_ID = "first-start-credit"
_FIRST_PAUSE_S = 0.2
_LAST_PAUSE_S = 5.0
_PART = ".part"


async def make_keys(
    store: FirstStartStore,
    access: AccessStore,
    ids: Ids,
    endpoint: str,
    client_file: Path | None,
) -> None:
    """Make the first keys, unless they are there; write them to ``client_file``.

    Raises:
        Precondition: CLIENT_FILE: it cannot be written.
    """
    operator, operator_key = new_key(ids, Role.OPERATOR, None, "first operator")
    tenant, tenant_key = new_key(ids, Role.TENANT, PROJECT, "first tenant")
    content = _content(endpoint, operator_key, tenant_key)
    part = None
    if client_file is not None and not await asyncio.to_thread(client_file.exists):
        part = client_file.with_name(f"{client_file.name}.{operator.id}{_PART}")
        await asyncio.to_thread(_write_private, part, content)
    if await store.begin(TENANT, PROJECT, [operator, tenant]):
        _LOG.info("first start: an operator's key, a tenant and its key were made")
        if part is None or client_file is None:
            _LOG.warning("the first keys are shown nowhere: no free GRIDLEASE_CLIENT_FILE was set")
            return
        with contextlib.suppress(FileNotFoundError):  # another gateway's start named it for us
            await asyncio.to_thread(part.replace, client_file)
        return
    if part is not None:
        part.unlink(missing_ok=True)
    if client_file is not None:
        for left in await asyncio.to_thread(_parts, client_file):
            await _recover(access, left, client_file)
        await asyncio.to_thread(_point_to, client_file, endpoint)


async def replace_keys(
    access: AccessStore, ids: Ids, endpoint: str, client_file: Path | None
) -> None:
    """Make new first keys for an operator who lost the client file; the old ones stay good.

    Raises:
        Precondition: CLIENT_FILE or NO_FIRST_START.
    """
    if client_file is None or await access.tenant_of(PROJECT) is None:
        raise Precondition(
            "There is no first tenant yet, or no file to write its key to.",
            reason="NO_FIRST_START",
            field="GRIDLEASE_CLIENT_FILE",
            remedy="Start the gateway once, and set GRIDLEASE_CLIENT_FILE.",
        )
    operator, operator_key = new_key(ids, Role.OPERATOR, None, "replaced operator")
    tenant, tenant_key = new_key(ids, Role.TENANT, PROJECT, "replaced tenant")
    part = client_file.with_name(f"{client_file.name}.{operator.id}{_PART}")
    content = _content(endpoint, operator_key, tenant_key)
    await asyncio.to_thread(_write_private, part, content)
    for key in (operator, tenant):
        await access.add_key(key)
    await asyncio.to_thread(part.replace, client_file)


def _content(endpoint: str, operator_key: str, tenant_key: str) -> dict[str, str]:
    return {
        "endpoint": endpoint,
        "operator_key": operator_key,
        "tenant_key": tenant_key,
        "tenant": f"tenants/{TENANT}",
        "project": f"projects/{PROJECT}",
    }


async def pay_in(inside: Inside, store: FirstStartStore, amount_nano: int) -> None:
    """Pay the first credit in, once, however long billing takes to come up."""
    pause_s = _FIRST_PAUSE_S
    request = account_pb2.CreateCreditRequest(
        tenant=f"tenants/{TENANT}",
        amount_nano=amount_nano,
        request_id=CREDIT_REQUEST_ID,
        note="prepaid at the first start",
    )
    while amount_nano > 0:
        try:
            if await store.credit_due():
                await inside.ask(
                    inside.accounts.CreateCredit,
                    request,
                    inside.patience_s,
                    account_pb2.CreateCreditResponse,
                )
                await store.credit_done()
                _LOG.info("first start: prepaid credit was paid in")
        except Fault as fault:
            _LOG.info("the first credit waits: %s", fault.message)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LAST_PAUSE_S)
        else:
            return


async def _recover(access: AccessStore, part: Path, client_file: Path) -> None:
    """Finish a first start that was interrupted between its commit and the file's name."""
    content = await asyncio.to_thread(_read, part)
    wanted = await _in_force(access, content)
    await asyncio.to_thread(_name_or_drop, part, client_file, wanted)


def _name_or_drop(part: Path, client_file: Path, wanted: bool) -> None:
    with contextlib.suppress(FileNotFoundError):
        if wanted and not client_file.exists():
            part.replace(client_file)
            _LOG.info("the first start's keys were recovered")
        else:
            part.unlink()


def _parts(client_file: Path) -> list[Path]:
    return sorted(client_file.parent.glob(f"{client_file.name}.*{_PART}"))


def _point_to(client_file: Path, endpoint: str) -> None:
    """Keep the endpoint current: the port may have changed since the keys were written."""
    content = _read(client_file)
    if content and content.get("endpoint") != endpoint:
        part = client_file.with_name(f"{client_file.name}.endpoint{_PART}")
        _write_private(part, {**content, "endpoint": endpoint})
        part.replace(client_file)


async def _in_force(access: AccessStore, content: dict[str, str]) -> bool:
    with contextlib.suppress(Unauthenticated):
        key_id, secret = keys.read_header(f"Bearer {content.get('operator_key', '')}")
        record = await access.key(key_id)
        return record is not None and record.secret_sha256 == keys.digest_of(secret)
    return False


def _read(path: Path) -> dict[str, str]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_private(path: Path, content: dict[str, str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(number, "w", encoding="utf-8") as out:
            json.dump(content, out, indent=2)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise Precondition(
            f"{path} cannot be written: {error.strerror or error}",
            reason="CLIENT_FILE",
            field="GRIDLEASE_CLIENT_FILE",
            remedy="Name a file in a folder that this user may write.",
        ) from error
