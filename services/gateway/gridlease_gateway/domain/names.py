"""Names of things, and the one answer for those that are missing or somebody else's."""

from __future__ import annotations

import re
from typing import Final

from gridlease_kernel.faults import Missing

_ID: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
_JOB: Final = re.compile(rf"(projects/{_ID})/jobs/{_ID}")
_PLAIN: Final = re.compile(rf"([a-z]+)/({_ID})")


def project_of_job(name: str) -> str | None:
    """ "projects/{project}" of a job's name; None if it is not one."""
    found = _JOB.fullmatch(name)
    return found.group(1) if found else None


def id_of(name: str, kind: str) -> str | None:
    """The id in "{kind}/{id}"; None if it is not such a name."""
    found = _PLAIN.fullmatch(name)
    return found.group(2) if found and found.group(1) == kind else None


def no_job(name: str, field: str = "name") -> Missing:
    """The same whether the job never was, or is another project's."""
    return Missing(
        f"There is no job {name!r}.",
        reason="JOB_NOT_FOUND",
        field=field,
        remedy="gridlease ps lists the jobs of your project.",
    )


def no_invoice(name: str) -> Missing:
    """The same whether the invoice never was, or is another tenant's."""
    return Missing(
        f"There is no invoice {name!r}.",
        reason="INVOICE_NOT_FOUND",
        field="name",
        remedy="gridlease invoice lists the invoices of your tenant.",
    )


def no_node(name: str) -> Missing:
    """No such node."""
    return Missing(
        f"There is no node {name!r}.",
        reason="NODE_NOT_FOUND",
        field="name",
        remedy="gridlease nodes lists them.",
    )


def no_reservation(name: str) -> Missing:
    """The same whether the reservation never was, or is another project's."""
    return Missing(
        f"There is no reservation {name!r}.",
        reason="RESERVATION_NOT_FOUND",
        field="name",
        remedy="gridlease reservations lists those of your project.",
    )


def no_project(name: str, field: str) -> Missing:
    """The same whether the project never was, or is another tenant's."""
    return Missing(
        f"There is no project {name!r}.",
        reason="PROJECT_NOT_FOUND",
        field=field,
        remedy="Leave it out for the key's own project.",
    )


def no_key(name: str) -> Missing:
    """The same whether the key never was, or is another project's."""
    return Missing(
        f"There is no key {name!r}.",
        reason="KEY_NOT_FOUND",
        field="name",
        remedy="gridlease keys list shows those of your project.",
    )


def no_tenant(name: str) -> Missing:
    """No such tenant."""
    return Missing(
        f"There is no tenant {name!r}.",
        reason="TENANT_NOT_FOUND",
        field="tenant",
        remedy="gridlease tenants create makes one; a name reads tenants/<id>.",
    )


def no_bundle(digest: str) -> Missing:
    """The same whether the bundle never was, or is another project's."""
    return Missing(
        f"There is no bundle {digest!r} in this project.",
        reason="BUNDLE_NOT_FOUND",
        field="spec.bundle_digest",
        remedy="Upload the bundle first (UploadBundle); gridlease submit does.",
    )


def no_event(message_id: str) -> Missing:
    """The same whether the event never was, is another project's, or is no longer kept."""
    return Missing(
        f"There is no event {message_id!r}.",
        reason="EVENT_NOT_FOUND",
        field="message_id",
        remedy="gridlease events and gridlease notices list those of your project.",
    )


def no_webhook(name: str) -> Missing:
    """The same whether the webhook never was, or is another project's."""
    return Missing(
        f"There is no webhook {name!r}.",
        reason="WEBHOOK_NOT_FOUND",
        field="name",
        remedy="gridlease webhooks lists those of your project.",
    )
