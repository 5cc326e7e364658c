"""What-if: a cluster with nodes added or taken away, as ``2 x H100-80GB:8`` says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from gridlease_simulate.cluster import Cluster, Group, like, resolve
from gridlease_simulate.fields import nearest, whole, wrong

_ADD: Final = re.compile(r"(\d+)\s*[x*]\s*([^:@\s]+)\s*(?::\s*(\d+))?\s*(?:@\s*(\S+))?")
_REMOVE: Final = re.compile(r"(\d+)\s*[x*]\s*(\S+)")


def changed(cluster: Cluster, add: Iterable[str], remove: Iterable[str]) -> Cluster:
    """The cluster after all changes.

    Raises:
        Invalid: BAD_CHANGE, UNKNOWN_CHIP, UNKNOWN_SITE, UNKNOWN_GROUP or NOT_SO_MANY.
    """
    groups = list(cluster.groups)
    for text in remove:
        _remove(groups, text)
    for at, text in enumerate(add):
        groups.append(_added(cluster, text, at))
    return replace(cluster, groups=tuple(groups))


def _added(cluster: Cluster, text: str, at: int) -> Group:
    """``COUNT x CHIP:DEVICES@SITE``, sized as the cluster's own nodes with that chip are."""
    found = _ADD.fullmatch(text.strip())
    if found is None:
        raise wrong(
            f"{text!r} is not an addition.",
            reason="BAD_CHANGE",
            field="--add",
            remedy='Write NODES x CHIP:DEVICES, such as "2 x H100-80GB:8" for 16 more H100s.',
        )
    count, name, devices, site = found.groups()
    chip = resolve(cluster.catalogue, name, "--add")
    number = whole(devices or 1, "--add", least=1, most=1_024)
    sites = [each.name for each in cluster.sites]
    if site and site not in sites:
        raise wrong(
            f"There is no site {site!r}.",
            reason="UNKNOWN_SITE",
            field="--add",
            remedy=nearest(site, sites),
        )
    model = like(cluster, chip, number)
    return replace(
        model,
        name=f"added{at}-{chip.name.lower()}",
        site=site or model.site,
        count=whole(count, "--add", least=1),
        chip=chip.name,
        devices=number,
        names=(),
    )


def _remove(groups: list[Group], text: str) -> None:
    found = _REMOVE.fullmatch(text.strip())
    if found is None:
        raise wrong(
            f"{text!r} is not a removal.",
            reason="BAD_CHANGE",
            field="--remove",
            remedy='Write NODES x GROUP, such as "2 x l4".',
        )
    count, name = whole(found[1], "--remove", least=1), found[2]
    at = next((at for at, group in enumerate(groups) if group.name == name), None)
    if at is None:
        raise wrong(
            f"There is no group of nodes {name!r}.",
            reason="UNKNOWN_GROUP",
            field="--remove",
            remedy=nearest(name, [group.name for group in groups]),
        )
    group = groups[at]
    if count > group.count or (count == group.count and len(groups) == 1):
        raise wrong(
            f"{name!r} has {group.count} nodes.",
            reason="NOT_SO_MANY",
            field="--remove",
            remedy="Remove fewer; one node must stay.",
        )
    if count == group.count:
        del groups[at]
    else:
        left = group.count - count
        groups[at] = replace(group, count=left, names=group.names[:left])
