"""The names of things: ``projects/P/jobs/J`` and its kin."""

from __future__ import annotations

import re

from gridlease_kernel.faults import Invalid, Missing

_PROJECT = re.compile(r"projects/[a-z0-9][a-z0-9-]{0,62}")
_TENANT = re.compile(r"tenants/[a-z0-9][a-z0-9-]{0,62}")
_SITE = re.compile(r"sites/([a-z0-9][a-z0-9-]{0,62})")
_LINK = re.compile(r"links/([a-z0-9][a-z0-9-]{0,62})")
_NODE = re.compile(r"nodes/([a-z0-9][A-Za-z0-9_-]{0,62})")


def check_project(name: str) -> str:
    """``name``, if it is a project's.

    Raises:
        Invalid: it is not.
    """
    if not _PROJECT.fullmatch(name):
        raise _bad(name, "project", "projects/demo")
    return name


def check_tenant(name: str) -> str:
    """``name``, if it is a tenant's.

    Raises:
        Invalid: it is not.
    """
    if not _TENANT.fullmatch(name):
        raise _bad(name, "tenant", "tenants/demo")
    return name


def site_id(name: str) -> str:
    """The site's id; empty = the default site.

    Raises:
        Invalid: not a site's name.
    """
    if not name:
        return "local"
    found = _SITE.fullmatch(name)
    if found is None:
        raise _bad(name, "site", "sites/local")
    return found.group(1)


def link_id(name: str) -> str:
    """The link's id.

    Raises:
        Invalid: not a link's name.
    """
    found = _LINK.fullmatch(name)
    if found is None:
        raise _bad(name, "name", "links/rack-1-up")
    return found.group(1)


def node_id(name: str) -> str:
    """The node's id.

    Raises:
        Invalid: not a node's name.
    """
    found = _NODE.fullmatch(name)
    if found is None:
        raise _bad(name, "name", "nodes/gpu-host-1")
    return found.group(1)


def own_job(project: str, name: str) -> str:
    """``name``, if it is a job of that project; a foreign one answers as a missing one.

    Raises:
        Missing: it is not.
    """
    if not name.startswith(f"{check_project(project)}/jobs/"):
        raise no_job(name)
    return name


def no_job(name: str) -> Missing:
    """The one answer for a job that is not there, or not the caller's."""
    return Missing(
        f"There is no job {name}.",
        reason="JOB_NOT_FOUND",
        field="name",
        remedy="List the project's jobs for their names.",
    )


def no_node(name: str) -> Missing:
    """The answer for a node that is not there."""
    return Missing(
        f"There is no node {name}.",
        reason="NODE_NOT_FOUND",
        field="name",
        remedy="List the nodes for their names.",
    )


def _bad(name: str, field: str, example: str) -> Invalid:
    return Invalid(
        f"{name!r} is not a {field}'s name.",
        reason="BAD_NAME",
        field=field,
        remedy=f"Write it like {example}.",
    )
