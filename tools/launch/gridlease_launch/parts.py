"""The platform's processes: their names, commands and environments. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .child import Part
from .folder import StateFolder
from .options import Options

SERVICES = ("scheduler", "billing", "gateway")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the broker and the database are, and how each service says who it is."""

    nats_url: str
    nats_creds: Mapping[str, Path]
    postgres_dsn: Mapping[str, str]
    postgres_owner_dsn: str
    nats_keys: Path | None


def service(name: str, folder: StateFolder, options: Options, addresses: Addresses) -> Part:
    """One of the three services of the centre."""
    env = {
        "GRIDLEASE_NATS_URL": addresses.nats_url,
        "GRIDLEASE_POSTGRES_DSN": addresses.postgres_dsn[name],
        "GRIDLEASE_POSTGRES_OWNER_DSN": addresses.postgres_owner_dsn,
        "GRIDLEASE_STATE": str(folder.root),
    }
    host, _, port = options.metrics.rpartition(":")
    if port.isdigit():  # one variable, three processes: each has a port of its own
        number = int(port) and int(port) + SERVICES.index(name)
        env["GRIDLEASE_METRICS_LISTEN"] = f"{host}:{number}"
    if name in addresses.nats_creds:
        env["GRIDLEASE_NATS_CREDS"] = str(addresses.nats_creds[name])
    if name == "scheduler":
        env["GRIDLEASE_NODE_NATS_URL"] = options.node_nats_url or addresses.nats_url
        if addresses.nats_keys is not None:
            env["GRIDLEASE_NATS_ACCOUNT_SEED"] = str(addresses.nats_keys / "signing.seed")
    if name == "gateway":
        env["GRIDLEASE_GATEWAY_LISTEN"] = options.endpoint
        env["GRIDLEASE_CLIENT_FILE"] = str(folder.client_file)
        env["GRIDLEASE_BUNDLES"] = str(folder.root / "bundles")
    return _part(name, [sys.executable, "-m", f"gridlease_{name}"], env, folder)


def agent(folder: StateFolder, options: Options, token: str | None) -> Part:
    """This host's own agent; ``token`` is given once, to join."""
    argv = [sys.executable, "-m", "gridlease_agent", "--state", str(folder.root / "node")]
    argv += ["--environments", str(folder.environments), "--join", options.endpoint]
    env = {"GRIDLEASE_NODE_TOKEN": token} if token else {}
    return _part("agent", argv, env, folder)


def fleet(folder: StateFolder, options: Options, tokens: Path) -> Part:
    """Emulated nodes, all in one process."""
    argv = [sys.executable, "-m", "gridlease_agent", "--state", str(folder.root / "fleet")]
    argv += ["--fleet", str(options.fleet), "--tokens-file", str(tokens)]
    argv += ["--join", options.endpoint]
    return _part("fleet", argv, {}, folder)


def _part(name: str, argv: list[str], env: dict[str, str], folder: StateFolder) -> Part:
    ready = folder.root / "run" / f"{name}.ready"
    return Part(name, argv, {**env, "GRIDLEASE_READY_FILE": str(ready)}, ready, folder.log(name))
