"""Devices that a core may not name: used, dirty, or being worked on; after any restart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gridlease_agent.devices.scrubbed import DeviceFault, Measured, Scrubbed
from gridlease_agent.executor.device_record import FILE, FOLDER, DeviceRecord, GuardedDevices
from gridlease_agent.executor.guard import Guarded
from gridlease_agent.noop import NoopSandboxes
from gridlease_agent.probes.facts import DeviceFacts
from gridlease_agent.runtimes.spec import SandboxSpec, uid_base
from gridlease_agent.runtimes.states import Deadline
from gridlease_kernel.clock import ManualClock
from gridlease_kernel.faults import Exists, Fault, Forbidden, Precondition


def _device(name: str, part_of: str = "") -> DeviceFacts:
    return DeviceFacts(name, 0, "gpu", "acme", "A100", 1 << 30, part_of=part_of)


DEVICES = (_device("g0"), _device("g1"), _device("m0", "g1"), _device("m1", "g1"))
FAR = Deadline("boot", 10**18, 10**18, 0)


class Sandboxes(NoopSandboxes):
    """Those that are not there; the next start may be refused."""

    trouble: Fault | None = None

    def start(self, lease_id: str, spec: SandboxSpec, deadline: Deadline) -> None:
        if self.trouble is not None:
            raise self.trouble
        super().start(lease_id, spec, deadline)


class Keeper:
    """Scrubs as it is told to."""

    def __init__(self) -> None:
        self.answer = Scrubbed("overwritten")
        self.asked: list[str] = []

    def lacks(self) -> dict[str, str]:
        return {}

    def scrub(self, device_id: str) -> Scrubbed:
        self.asked.append(device_id)
        return self.answer

    def faults(self) -> tuple[DeviceFault, ...]:
        return ()

    def certify(self, device_id: str) -> Measured:
        return Measured(trouble=device_id)


class Host:
    """One executor's life over a state folder that outlives it."""

    def __init__(self, state: Path, sandboxes: Sandboxes) -> None:
        self.sandboxes, self.keeper = sandboxes, Keeper()
        self.record = DeviceRecord(state, DEVICES)
        self.guarded = Guarded(sandboxes, state / "environments", set, self.record)
        self.devices = GuardedDevices(self.keeper, self.record, sandboxes)

    def start(self, lease_id: str, *devices: str, slot: int = 0) -> None:
        spec = SandboxSpec(
            lease_id,
            ("true",),
            uid_base=uid_base(slot),
            devices=devices,
            emulated_duration_ms=10_000,
        )
        self.guarded.start(lease_id, spec, FAR)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sandboxes(clock: ManualClock) -> Sandboxes:
    return Sandboxes(clock)


@pytest.fixture
def host(tmp_path: Path, sandboxes: Sandboxes) -> Host:
    return Host(tmp_path, sandboxes)


def test_a_device_in_use_or_dirty_is_given_to_nobody(
    tmp_path: Path, host: Host, sandboxes: Sandboxes, clock: ManualClock
) -> None:
    host.start("ls-1", "g0")
    for again in (host, Host(tmp_path, sandboxes)):  # the executor was killed meanwhile
        with pytest.raises(Forbidden) as refused:
            again.start("ls-2", "g0")
        assert refused.value.reason == "DEVICE_NOT_FREE"
    assert host.devices.scrub("g0").trouble == "lease ls-1 still runs on it"
    assert host.devices.certify("g0").trouble == "lease ls-1 still runs on it"
    clock.advance(20)  # it is over, and dirty
    with pytest.raises(Forbidden):
        host.start("ls-2", "g0")
    host.keeper.answer = Scrubbed(trouble="it does not answer")
    assert host.devices.scrub("g0").trouble
    with pytest.raises(Forbidden):
        host.start("ls-2", "g0")
    host.keeper.answer = Scrubbed("overwritten")
    assert host.devices.scrub("g0").method == "overwritten"
    host.start("ls-2", "g0")


@pytest.mark.parametrize(("first", "then"), [("g1", "m0"), ("m0", "g1")])
def test_a_part_is_in_the_way_of_the_whole(host: Host, first: str, then: str) -> None:
    host.start("ls-1", first)
    with pytest.raises(Forbidden):
        host.start("ls-2", then)
    host.start("ls-3", "g0")


def test_parts_of_one_device_are_apart(host: Host) -> None:
    host.start("ls-1", "m0")
    host.start("ls-2", "m1")


def test_a_start_that_made_nothing_leaves_no_mark(host: Host, sandboxes: Sandboxes) -> None:
    sandboxes.trouble = Precondition("No.", reason="NO")
    with pytest.raises(Precondition):
        host.start("ls-1", "g0", "g1")
    sandboxes.trouble = None
    host.start("ls-2", "g0", "g1")
    with pytest.raises(Exists):  # what runs keeps its mark, however often it is asked for
        host.start("ls-2", "g0", "g1")
    with pytest.raises(Forbidden):
        host.start("ls-3", "g1")


def test_nobody_gets_what_is_being_worked_on(host: Host) -> None:
    with host.record.busy("g0"):
        with pytest.raises(Forbidden):
            host.start("ls-1", "g0")
        with pytest.raises(Forbidden):
            host.devices.scrub("g0")
    host.start("ls-1", "g0")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"given": 3}', '{"given": {"g0"'])
def test_a_record_that_cannot_be_read_gives_nothing_away(
    tmp_path: Path, sandboxes: Sandboxes, text: str
) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / FILE).write_text(text)
    host = Host(tmp_path, sandboxes)
    with pytest.raises(Forbidden):
        host.start("ls-1", "g0")
    assert host.devices.scrub("g0").method
    host.start("ls-1", "g0")


def test_leases_of_an_earlier_version_hold_theirs(tmp_path: Path, sandboxes: Sandboxes) -> None:
    folder = tmp_path / "leases" / "ls-9"
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text("{}")
    (folder / "held.json").write_text(json.dumps({"devices": ["g0", "scratch-ls-9"]}))
    host = Host(tmp_path, sandboxes)
    assert json.loads((tmp_path / FOLDER / FILE).read_text()) == {"given": {"g0": "ls-9"}}
    with pytest.raises(Forbidden):
        host.start("ls-1", "g0")
