"""Makes what must be root: the objects behind the verbs, and the only place that knows them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gridlease_agent.adapters.lease_files import LeaseFiles
from gridlease_agent.devices.keeper import keeper_at
from gridlease_agent.devices.place import place_of
from gridlease_agent.devices.scrubbed import DeviceKeeping, NothingKept
from gridlease_agent.executor.codec import Handle
from gridlease_agent.executor.device_record import DeviceRecord, GuardedDevices
from gridlease_agent.executor.guard import Guarded, GuardedFiles, GuardedHeld
from gridlease_agent.images.roots import ImageRoots
from gridlease_agent.isolate.host_ground import host_ground
from gridlease_agent.keeper.build import keeper_for
from gridlease_agent.probes import table
from gridlease_agent.probes.facts import NodeFacts
from gridlease_agent.runtimes.choose import choose_runtime
from gridlease_agent.runtimes.devices import table_of
from gridlease_agent.runtimes.held import HeldSandboxes
from gridlease_agent.runtimes.states import Isolation
from gridlease_agent.sampling import host
from gridlease_agent.sandbox import Sandboxes
from gridlease_agent.sessions.host import SessionHost
from gridlease_agent.settings import Settings


@dataclass(frozen=True, slots=True)
class Privileged:
    """All that touches sandboxes and their files on this host."""

    sandboxes: Sandboxes
    files: LeaseFiles
    told: Isolation
    entrance: SessionHost
    images: ImageRoots | None
    facts: NodeFacts
    keeper: DeviceKeeping

    def isolation(self) -> Isolation:
        """By what tasks are isolated here."""
        return self.told

    def discovered(self) -> NodeFacts:
        """What this host is made of."""
        return self.facts

    def open_energy(self, zone: str) -> Handle | None:
        """A processor package's energy counter, open to read: the file is root's alone.

        Raises:
            Invalid: BAD_NAME.
        """
        return host.open_energy(zone)


def privileged(state: Path, settings: Settings, core: tuple[int, int] | None = None) -> Privileged:
    """This host's. ``core``: uid and gid of a core that is not this process's own user.

    Blocking: tries the sandbox runtime once a process.

    Raises:
        Precondition: NO_SANDBOX_RUNTIME.
    """
    runtime = choose_runtime()
    found = host_ground(state, runtime, settings)
    files = LeaseFiles(
        state, kept_bytes=settings.kept_bytes, kept_hours=settings.kept_hours, core=core
    )
    here = state.absolute()
    images = (
        ImageRoots(here / "images", here / "leases", here / "blobs", settings.images_bytes)
        if runtime.root
        else None
    )
    minder = keeper_for(here)
    unenforced = (*runtime.unenforced, *found.unenforced, *minder.unenforced())
    holds = runtime.name == "crun" and minder.holds
    told = Isolation(runtime.name, unenforced, images=images is not None, holds=holds)
    place = place_of(settings.device_root, settings.device_families)
    facts = table.discover(state, place=place)
    devices = table_of(facts.devices, settings.device_hooks, place)
    keeper: DeviceKeeping = NothingKept(tuple(x.id for x in facts.devices), emulated=False)
    if runtime.name == "crun":
        keeper = keeper_at(place, devices)
    sandboxes = Sandboxes(
        state, runtime, table=devices, ground=found.ground, roots=images, keeper=minder
    )
    return Privileged(sandboxes, files, told, SessionHost(state), images, facts, keeper)


def rooms(own: Privileged, state: Path, environments: Path) -> Mapping[str, object]:
    """Who answers each room of ``verbs.ROOMS``."""
    record = DeviceRecord(state, own.facts.devices)
    sandboxes = Guarded(own.sandboxes, environments, own.files.taken_slots, record)
    return {
        "host": own,
        "sandboxes": sandboxes,
        "warm": GuardedHeld(HeldSandboxes(own.sandboxes), sandboxes),
        "files": GuardedFiles(own.files, own.sandboxes),
        "devices": GuardedDevices(own.keeper, record, own.sandboxes),
        "images": own.images,
        "sessions": own.entrance,
        "reports": own.files.reports,
    }
