"""The permission matrix: every role against every subject, on a real broker."""

import asyncio
import contextlib
import importlib
import re
from pathlib import Path

import nats as nats_py
import pytest
from gridlease_mesh import credentials, permissions
from gridlease_mesh.permissions import ROLES, covers, node_permissions, role_permissions
from gridlease_testkit.waiting import eventually

NODE = "n-1"
WHO = [*ROLES, f"node:{NODE}"]
SOON_S = 10.0
_VIOLATION = re.compile(
    r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE
)
PROTOS = Path(__file__).parents[3] / "protos"


def rights(who):
    if who.startswith("node:"):
        return node_permissions(who[5:])
    return role_permissions(who)


def concrete(pattern, node):
    """A subject that a pattern hears, of a node's where it has one."""
    subject = pattern.replace("_INBOX.node.*", f"_INBOX.node.{node}")
    for root in ("up", "node", "back", "hint", "tel"):
        subject = subject.replace(f"gl.{root}.*", f"gl.{root}.{node}")
    tokens = [{"*": "x1", ">": "x1"}.get(token, token) for token in subject.split(".")]
    return ".".join(tokens)


def all_subjects():
    """One of each pattern of everybody, of this node and another, and what nobody may."""
    found = {
        "gl.any.gridlease.scheduler.v1.JobService.x1.deeper",
        "gl.other.x1",
        "other.x1",
        "_INBOX.x1",
        "_INBOX.svc.x1.x1",
        "$JS.API.INFO",
        "$JS.API.STREAM.CREATE.x1",
        "$JS.API.STREAM.PURGE.EVENTS",
        "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.x1",
        "$JS.API.STREAM.DELETE.DEAD",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.CLAIMS.UPDATE",
    }
    for who in WHO:
        mine = rights(who)
        for pattern in (*mine.publish, *mine.subscribe):
            for node in (NODE, "n-2"):
                found.add(concrete(pattern.replace(NODE, "*") if "node" in who else pattern, node))
                found.add(concrete(pattern, node))
    # An order to delete the feed would be carried out under the others' feet.
    return sorted(found - {"$JS.API.STREAM.DELETE.EVENTS"})


class Peer:
    """A plain NATS client, and what the broker refused it."""

    def __init__(self):
        self.refused = {"publish": set(), "subscription": set()}
        self.heard = set()

    async def connect(self, url, creds, inbox):
        async def on_error(error):
            found = _VIOLATION.search(str(error))
            if found:
                self.refused[found[1].lower()].add(found[2].lower())

        self.client = await nats_py.connect(
            url, user_credentials=str(creds), error_cb=on_error, inbox_prefix=inbox
        )

    async def hear(self, subject):
        async def note(message):
            self.heard.add((message.subject, message.data))

        await self.client.subscribe(subject, cb=note)


@pytest.fixture
async def peer(nats, tmp_path):
    """Call it with a role, a node or None (all is allowed)."""
    async with contextlib.AsyncExitStack() as stack:

        async def join(who=None):
            made = Peer()
            inbox = "_INBOX"
            if who is None:
                creds = nats.service_creds("matrix")
            elif who.startswith("node:"):
                seed, public = credentials.new_user_key()
                creds = tmp_path / "node.creds"
                token = nats.authority.mint_node_user(who[5:], public)
                credentials.write_creds(creds, token, seed)
                inbox = f"_INBOX.node.{who[5:]}"
            else:
                creds, inbox = nats.role_creds(who), f"_INBOX.svc.{who}"
            await made.connect(nats.url, creds, inbox)
            stack.push_async_callback(made.client.close)
            return made

        yield join


@pytest.mark.parametrize("who", WHO)
async def test_every_publish_is_let_through_or_refused(peer, who):
    spy, subject_peer = await peer(), await peer(who)
    await spy.hear(">")
    await spy.client.flush()
    cells = all_subjects()
    mark = who.encode()
    for subject in cells:
        await subject_peer.client.publish(subject, mark)
    await subject_peer.client.flush()
    last = "_INBOX.matrix.last"
    await (await peer()).client.publish(last, mark)
    async with asyncio.timeout(SOON_S):
        while (last, mark) not in spy.heard:
            await spy.client.flush()
    mine = rights(who)
    allowed = {subject for subject in cells if mine.may_publish(subject)}
    denied = {it.lower() for it in set(cells) - allowed}
    await eventually(lambda: len(subject_peer.refused["publish"]) >= len(denied))
    assert subject_peer.refused["publish"] == denied
    told = {subject for subject, data in spy.heard if data == mark} - {last}
    ordinary = {it for it in allowed if not it.startswith("$JS")}  # those go to the broker itself
    assert told - {it for it in told if it.startswith("$JS")} == ordinary


@pytest.mark.parametrize("who", WHO)
async def test_every_subscription_hears_or_is_refused(peer, who):
    spy, subject_peer = await peer(), await peer(who)
    cells = all_subjects()
    for subject in cells:
        await subject_peer.hear(subject)
    await subject_peer.client.flush()
    mine = rights(who)
    allowed = {subject for subject in cells if mine.may_subscribe(subject)}
    refused = {it.lower() for it in set(cells) - allowed}
    await eventually(lambda: len(subject_peer.refused["subscription"]) >= len(refused))
    assert subject_peer.refused["subscription"] == refused
    private = f"to {who}".encode()
    ordinary = [it for it in cells if not it.startswith(("$JS", "$SYS"))]
    for subject in ordinary:
        await spy.client.publish(subject, private)
    await spy.client.flush()
    await subject_peer.client.flush()
    wanted = {it for it in ordinary if it in allowed}
    async with asyncio.timeout(SOON_S):
        while len({it for it, data in subject_peer.heard if data == private}) < len(wanted):
            await subject_peer.client.flush()
    assert {it for it, data in subject_peer.heard if data == private} == wanted


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("wildcard", [">", "gl.>", "gl.up.*.>", "_INBOX.>", "$JS.>", "*.>"])
async def test_nobody_listens_to_everything(peer, who, wildcard):
    subject_peer = await peer(who)
    await subject_peer.hear(wildcard)
    await eventually(lambda: subject_peer.refused["subscription"] == {wildcard.lower()})


def test_each_service_is_served_by_one_role_or_by_nodes_or_in_public():
    declared = set()
    for proto in sorted(PROTOS.glob("gridlease/*/v1/*.proto")):
        name = ".".join(proto.relative_to(PROTOS).with_suffix("").parts)
        module = importlib.import_module(f"{name}_pb2")
        declared |= {it.full_name for it in module.DESCRIPTOR.services_by_name.values()}
    served = [service for role in ROLES.values() for service in role.serves]
    assert len(served) == len(set(served))
    assert {*served, *permissions.NODE_SERVES, *permissions.PUBLIC} == declared
    for role in ROLES.values():
        assert role.calls <= set(served)
        assert role.on_nodes <= permissions.NODE_SERVES
        assert role.to_nodes <= role.serves


@pytest.mark.parametrize(
    ("allowed", "pattern", "yes"),
    [
        ("a.>", "a.b", True),
        ("a.>", "a.*.c", True),
        ("a.>", "a", False),
        ("a.*", "a.b", True),
        ("a.*", "a.*", True),
        ("a.*", "a.>", False),
        ("a.b", "a.*", False),
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b", False),
        ("a.b", "a.b.c", False),
    ],
)
def test_one_pattern_covers_another(allowed, pattern, yes):
    assert covers(allowed, pattern) is yes
