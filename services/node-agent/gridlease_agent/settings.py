"""Settings of the agent: ``GRIDLEASE_*`` variables, and the flags of its command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """From the environment; times in milliseconds, see docs/lease-protocol.md, section 5."""

    renew_retry_ms: int = 5_000
    report_ms: int = 10_000  # how often billing hears what runs, also between renewals; 0 = not
    grace_ms: int = 30_000
    slow_tick_ms: int = 10_000
    kept_bytes: int = 2 << 30
    kept_hours: int = 168
    telemetry_spool_bytes: int = 32 << 20  # of samples that wait for a connection
    burn_in_ms: int = 600  # how long to measure the host, once a boot and driver; 0 = not at all
    memory_reserve_bytes: int = 1 << 30
    images_bytes: int = 32 << 30  # what all images may take, unpacked
    warm_count: int = 4  # sandboxes that may wait for leases; 0 = none
    warm_memory_bytes: int = 512 << 20  # what those may use together
    disk_share_percent: int = 80
    uplinks: str = ""  # ways out for tasks: "host:1000", "eth1:10000:203.0.113.9/24:203.0.113.1"
    protected: str = ""  # addresses of the platform that no task may call, with commas between
    io_bytes_per_s: int = 0  # of each lease, reading and writing alike; 0 = not limited
    device_hooks: str = ""  # SHA-256 of vendors' programs that may run as root, with commas
    device_families: Path | None = None  # a folder of the operator's own family files
    device_root: Path | None = None  # stand-ins below this folder are lent, marked emulated
    nats_url: str = ""  # in place of the one that enrolment answered
    node_token: str = ""
    agent_user: str = ""  # of the core: a user's name; "root" = one process; "" = gridlease
    executor: Path | None = None  # the state folder whose executor is asked; set for the core
    ready_fd: int = -1  # a pipe to say on that the core serves
    ready_file: Path | None = None
    metrics_port: int = 0  # of the Prometheus page on the loopback interface; 0 = none
    log_level: str = "INFO"


@dataclass(frozen=True, slots=True)
class Flags:
    """From the command line."""

    state: Path
    environments: Path
    join: str = ""
    token: str = ""
    site: str = ""
    emulate: str = ""
    fleet: int = 0
    tokens_file: Path | None = None
