"""Sandboxes made ahead under any order of wishes, leases and crashes: the pure part's promises."""

from dataclasses import replace

from gridlease_agent.domain import warm
from gridlease_agent.domain.spool import Spool, Warm, WarmKind
from gridlease_agent.domain.warm import Being, Bounds, Need, Wish
from hypothesis import given, settings
from hypothesis import strategies as st

BOUNDS = Bounds(3, 600 << 20)
TENANTS = ("tenants/a", "tenants/b", "")
kinds = st.builds(
    WarmKind,
    tenant=st.sampled_from(TENANTS),
    root=st.sampled_from(("", "sha256:1")),
    modules=st.sampled_from(((), ("numpy",))),
    cpu_milli=st.sampled_from((500, 1000, 4000)),
    disk_bytes=st.sampled_from((1 << 20, 1 << 30)),
)
wishes = st.lists(st.builds(Wish, kind=kinds, count=st.integers(0, 4)), max_size=4)
needs = st.builds(Need, kind=kinds, alone=st.booleans(), python=st.booleans())
MOVES = ("wish", "turn", "turn", "lease", "ready", "dies", "reboot")
moves = st.lists(st.tuples(st.sampled_from(MOVES), wishes, needs, st.integers(0, 9)), max_size=40)


class _Host:
    """Rows on disk, folders on disk, and where a crash may cut each move in two."""

    def __init__(self):
        self.spool = Spool("sp")
        self.folders = {}  # warm id -> (kind, being)
        self.wishes = []
        self.boot = 0
        self.count = 0
        self.given = {}  # warm id -> need

    def turn(self, cut):
        """One turn of the pool that is cut off after ``cut`` effects."""
        seen = {name: being for name, (_, being) in self.folders.items()}
        found = warm.plan(self.spool.warm, seen, self.wishes, BOUNDS, f"b{self.boot}")
        effects = []
        for name in found.drop:
            effects += [lambda n=name: self._forget(n), lambda n=name: self.folders.pop(n, None)]
        for kind in found.make:
            self.count += 1
            name = f"{warm.PREFIX}{self.count}"
            row = Warm(name, kind, f"b{self.boot}")
            effects += [lambda r=row: self._record(r), lambda r=row: self._folder(r)]
        for effect in effects[:cut]:
            effect()
        return len(effects)

    def _forget(self, name):
        self.spool = warm.without(self.spool, name)

    def _record(self, row):
        self.spool = warm.made(self.spool, row)

    def _folder(self, row):
        self.folders[row.warm_id] = (row.kind, Being.MAKING)

    def lease(self, need, cut):
        """A lease starts; a crash may leave the row gone and the sandbox where it was."""
        waiting = {name for name, (_, being) in self.folders.items() if being is Being.WAITING}
        name = warm.choose(self.spool.warm, waiting, need)
        if name is None:
            return
        kind = self.folders[name][0]
        assert not need.alone
        assert kind.tenant == need.kind.tenant != ""
        assert (kind.root, kind.disk_bytes) == (need.kind.root, need.kind.disk_bytes)
        assert name not in self.given
        self.given[name] = need
        self._forget(name)
        if cut > 2:
            del self.folders[name]


@settings(max_examples=300, deadline=None)
@given(moves)
def test_none_is_given_twice_or_across_tenants_and_none_is_left(steps):
    host = _Host()
    for what, wished, need, cut in steps:
        if what == "wish":
            host.wishes = wished
        elif what == "turn":
            host.turn(cut)
        elif what == "lease":
            host.lease(need, cut)
        elif what == "ready":
            for name, (kind, _) in list(host.folders.items())[:cut]:
                host.folders[name] = (kind, Being.WAITING)
        elif what == "dies":
            for name, (kind, _) in list(host.folders.items())[: cut // 3]:
                host.folders[name] = (kind, Being.OVER)
        else:
            host.boot += 1
            host.folders = {name: (kind, Being.OVER) for name, (kind, _) in host.folders.items()}
    for _ in range(3):
        host.turn(10**6)
    assert host.spool.warm.keys() == host.folders.keys()
    assert len(host.folders) <= BOUNDS.count
    held = sum(warm.held_bytes(row.kind) for row in host.spool.warm.values())
    assert held <= BOUNDS.memory_bytes
    assert host.turn(0) == 0  # at rest
    host.wishes = []
    host.turn(10**6)
    assert not host.folders
    assert not host.spool.warm


@given(wishes, needs)
def test_a_wish_is_met_in_its_order_and_within_its_bounds(wished, need):
    made = warm.plan({}, {}, wished, BOUNDS, "b").make
    asked = [kind for one in wished for kind in [one.kind] * one.count]
    assert len(made) <= min(BOUNDS.count, len(asked))
    rows = {f"warm-{n}": Warm(f"warm-{n}", kind, "b") for n, kind in enumerate(made)}
    found = warm.choose(rows, rows, replace(need, alone=False))
    fits = [
        name
        for name, row in rows.items()
        if (row.kind.tenant, row.kind.root, row.kind.disk_bytes)
        == (need.kind.tenant, need.kind.root, need.kind.disk_bytes)
        and need.kind.tenant
        and not row.kind.modules
    ]
    assert found is not None or not fits
