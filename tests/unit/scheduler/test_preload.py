"""What a node should have at hand: what was used of late, within its bounds."""

from gridlease.type.v1 import job_pb2
from gridlease_scheduler.domain.preload import Recent, Use, preload, usages
from gridlease_scheduler.wire.preload import use

SHORT, LONG = 1_000, 3_600_000


def _use(tenant="tenants/a", image="r.example/app:v1", runtime="", chip="", **more):
    return Use(tenant, image, runtime, chip, 1000, 1 << 28, 1 << 30, **more)


def _wishes(recent, chips=()):
    return preload(usages(recent), chips)


def test_popular_images_go_where_their_chip_is():
    recent = [Recent(_use(chip="A100-80GB"))] * 3 + [Recent(_use(image="", runtime="digits"))] * 2
    assert [(x.image, x.runtime) for x in _wishes(recent)] == [("", "digits")]
    found = _wishes(recent, {"A100-80GB"})
    assert [(x.image, x.runtime) for x in found] == [("r.example/app:v1", ""), ("", "digits")]
    assert not any(x.tenant or x.created or x.frozen for x in found)


def test_once_is_no_habit():
    assert _wishes([Recent(_use(image=f"r.example/{n}")) for n in range(100)]) == ()


def test_frequent_short_jobs_and_services_have_sandboxes_ahead():
    often = [Recent(_use(ahead=True), ran_ms=SHORT)] * 5
    frozen = [Recent(_use("tenants/b", ahead=True, modules=("numpy",)), service=True)]
    first, second = _wishes(often + frozen)
    assert (first.tenant, first.created, first.frozen) == ("tenants/a", 1, 0)
    assert (second.tenant, second.created, second.frozen) == ("tenants/b", 0, 1)
    assert second.modules == ("numpy",)
    assert (first.cpu_milli, first.memory_bytes, first.disk_bytes) == (1000, 1 << 28, 1 << 30)


def test_long_jobs_and_those_with_devices_have_none():
    long = [Recent(_use(ahead=True), ran_ms=LONG)] * 50
    devices = [Recent(_use(chip="A100-80GB"), ran_ms=SHORT)] * 50
    assert not any(x.tenant for x in _wishes(long + devices, {"A100-80GB"}))


def test_wishes_are_bounded():
    recent = [
        Recent(_use(f"tenants/{n}", f"r.example/{n}", ahead=True), ran_ms=SHORT)
        for n in range(200)
        for _ in range(100)
    ]
    found = _wishes(recent)
    assert len(found) <= 16
    assert sum(x.created for x in found) <= 16
    assert sum(bool(x.tenant) for x in found) == 4


def test_what_a_job_stands_on():
    spec = job_pb2.JobSpec(image="r.example/a:v1", env={"GRIDLEASE_WARM_MODULES": "numpy, json"})
    spec.resources.cpu_milli.min = 500
    found = use("tenants/a", spec.SerializeToString(), "", accelerated=False)
    assert (found.ahead, found.modules, found.cpu_milli) == (True, ("numpy", "json"), 500)
    spec.network.egress = job_pb2.EGRESS_PUBLIC
    assert not use("tenants/a", spec.SerializeToString(), "", accelerated=False).ahead
    assert not use("tenants/a", b"", "A100-80GB", accelerated=True).ahead
