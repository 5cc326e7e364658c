"""Job files: YAML or JSON with the keys that users of dstack and SkyPilot type.

type, name, commands, resources {cpu, memory, disk, gpu}, nodes, priority, tier, purpose,
max_duration, budget, max_price, env, workdir, files, outputs, runtime, image, secrets,
lost_after, max_attempts, notice, and those of ``placement``. Every refusal names the key, as a
path, and the remedy.
docs/jobs.md is the table of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gridlease.type.v1 import job_pb2 as types
from gridlease_kernel.faults import Invalid, Missing, TooLarge
from gridlease_kernel.units import (
    parse_count,
    parse_duration,
    parse_money,
    parse_range,
)

from gridlease_sdk import jobvalues, jobyaml, placement, secretvalues
from gridlease_sdk.jobvalues import choice, integer, text, texts, wrong_type
from gridlease_sdk.resources import RESOURCE_ALIASES, set_resources

MAX_FILE_BYTES: Final = 1 << 20
_ALIASES: Final = {
    "run": "commands",
    "envs": "env",
    "num_nodes": "nodes",
    "working_dir": "workdir",
    "artefacts": "outputs",
    "artifacts": "outputs",
}
_TYPES: Final = {
    "task": types.JOB_TYPE_TASK,
    "service": types.JOB_TYPE_SERVICE,
    "dev-environment": types.JOB_TYPE_DEV_ENVIRONMENT,
}
TIERS: Final = {
    "reserved": types.TIER_RESERVED,
    "on-demand": types.TIER_ON_DEMAND,
    "spot": types.TIER_SPOT,
}
_PURPOSES: Final = {
    "training": types.PURPOSE_TRAINING,
    "inference": types.PURPOSE_INFERENCE,
    "batch": types.PURPOSE_BATCH,
}
# Its token lies where gridlease jupyter reads it, in a folder that goes with the lease.
_JUPYTER: Final = (
    "umask 077; t=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \\n'); "
    'printf %s "$t" > /work/.jupyter-token; JUPYTER_TOKEN=$t exec jupyter lab --no-browser '
    "--ip=127.0.0.1 --port=8888 --ServerApp.port_retries=0 --ServerApp.root_dir=/work"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """A job before it is submitted: its spec, and the files that go with it."""

    spec: types.JobSpec
    files: Mapping[str, Path] = dataclasses.field(default_factory=dict)


def load(path: Path) -> Draft:
    """The job in a file; paths in it count from its folder.

    Raises:
        Missing: FILE_NOT_FOUND.
        TooLarge: FILE_TOO_LARGE.
        Invalid: what is wrong in it, with the key.
    """
    values, folder = open_file(path)
    return read(values, folder)


def open_file(path: Path) -> tuple[dict[str, Any], Path]:
    """The keys in a file, unread as yet, and the folder that its paths count from.

    Raises:
        Missing: FILE_NOT_FOUND.
        TooLarge: FILE_TOO_LARGE.
        Invalid: it cannot be read.
    """
    try:
        with path.open("rb") as source:
            content = source.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise Missing(
            f"There is no file {path}.",
            reason="FILE_NOT_FOUND",
            field="file",
            remedy="Name a job file, or give a command: gridlease submit -- COMMAND.",
        ) from error
    except OSError as error:
        raise Invalid(
            f"{path} cannot be read: {error.strerror or error}",
            reason="FILE_UNREADABLE",
            field="file",
            remedy="Name a readable job file.",
        ) from error
    return _keys(content), path.parent


def other_names(key: str) -> list[str]:
    """What else users call a key."""
    return [it for it, own in {**_ALIASES, **RESOURCE_ALIASES}.items() if own == key]


def parse(content: bytes, folder: Path = Path()) -> Draft:
    """The job in the bytes of a file; paths in it count from ``folder``.

    Raises:
        TooLarge: FILE_TOO_LARGE.
        Invalid: what is wrong in it, with the key.
    """
    return read(_keys(content), folder)


def _keys(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_FILE_BYTES:
        raise TooLarge(
            f"A job file holds at most {MAX_FILE_BYTES >> 20} MiB.",
            reason="FILE_TOO_LARGE",
            field="file",
            remedy="Put data into workdir or files, not into the job file.",
        )
    return dict(jobyaml.read(content))


def read(values: Mapping[str, Any], folder: Path = Path()) -> Draft:
    """The job in a mapping of keys, as a job file has them.

    Raises:
        Invalid: what is wrong in it, with the key.
    """
    spec = types.JobSpec()
    spec.resources.SetInParent()
    named = jobvalues.known_keys(values, {*_SETTERS, *_APART}, _ALIASES, "")
    for key, value in named.items():
        if key in _SETTERS:
            _SETTERS[key](spec, value)
    _stay(spec, jupyter=named.get("jupyter"))
    if not spec.commands and not spec.image:
        raise Invalid(
            "The job has no commands.",
            reason="COMMANDS_MISSING",
            field="commands",
            remedy='Write a list: commands: ["python train.py"]; or an image that runs by itself.',
        )
    for name, value in secretvalues.read(named.get("secrets"), folder).items():
        spec.secrets[name] = value
    return Draft(spec, _files(named, folder))


def _stay(spec: types.JobSpec, *, jupyter: Any) -> None:
    """What only a dev-environment has, and what it runs where nothing is said.

    Raises:
        Invalid: DEV_ENVIRONMENT_ONLY, WRONG_TYPE.
    """
    if jupyter not in (None, True, False):
        raise wrong_type("jupyter", "true or false", jupyter)
    stays = spec.type == types.JOB_TYPE_DEV_ENVIRONMENT
    only = {"jupyter": bool(jupyter), "idle_stop": bool(spec.idle_stop_ms)}
    only["ssh_keys"] = bool(spec.ssh_keys)
    for key in () if stays else [key for key, given in only.items() if given]:
        raise Invalid(
            f"{key} belongs to a dev-environment.",
            reason="DEV_ENVIRONMENT_ONLY",
            field=key,
            remedy="Write type: dev-environment, or leave it out.",
        )
    if jupyter:
        spec.commands.append(_JUPYTER)
    elif stays and not spec.commands:
        spec.commands.append("exec sleep infinity")


def _ssh_keys(spec: types.JobSpec, value: Any) -> None:
    spec.ssh_keys.extend(it.strip() for it in texts(value, "ssh_keys"))


def _files(named: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Path in the bundle → file or folder here: workdir at the root, files beside."""
    found: dict[str, Path] = {}
    if named.get("workdir") is not None:
        found["."] = folder / text(named["workdir"], "workdir")
        if not found["."].is_dir():
            raise Missing(
                f"There is no folder {found['.']}.",
                reason="FILE_NOT_FOUND",
                field="workdir",
                remedy="Paths count from the job file's folder.",
            )
    given = named.get("files")
    if isinstance(given, Mapping):
        for name, source in given.items():
            found[text(name, "files")] = folder / text(source, f"files.{name}")
    elif given is not None:
        for name in texts(given, "files"):
            found[name] = folder / name
    return found


def _commands(spec: types.JobSpec, value: Any) -> None:
    spec.commands.extend(texts(value, "commands"))


def _nodes(spec: types.JobSpec, value: Any) -> None:
    span = parse_range(jobvalues.plain(value, "nodes"), "nodes", parse_count, lowest=1)
    spec.nodes.min, spec.nodes.max = span.low, span.high


def _env(spec: types.JobSpec, value: Any) -> None:
    if isinstance(value, list):
        value = dict(jobvalues.assignment(it, f"env[{at}]") for at, it in enumerate(value))
    if not isinstance(value, Mapping):
        raise wrong_type("env", "a mapping of names to values", value)
    for name, item in value.items():
        spec.env[text(name, "env")] = jobvalues.plain(item, f"env.{name}")


def _outputs(spec: types.JobSpec, value: Any) -> None:
    spec.outputs.extend(texts(value, "outputs"))


def _span_ms(key: str) -> Callable[[types.JobSpec, Any], None]:
    def put(spec: types.JobSpec, value: Any) -> None:
        setattr(spec, f"{key}_ms", parse_duration(jobvalues.plain(value, key), key))

    return put


def _money(key: str, field: str) -> Callable[[types.JobSpec, Any], None]:
    def put(spec: types.JobSpec, value: Any) -> None:
        setattr(spec, field, parse_money(jobvalues.plain(value, key), key))

    return put


def _text(key: str, field: str) -> Callable[[types.JobSpec, Any], None]:
    def put(spec: types.JobSpec, value: Any) -> None:
        setattr(spec, field, text(value, key))

    return put


def _integer(key: str, high: int) -> Callable[[types.JobSpec, Any], None]:
    def put(spec: types.JobSpec, value: Any) -> None:
        setattr(spec, key, integer(value, key, high))

    return put


def _choice(key: str, values: Mapping[str, int]) -> Callable[[types.JobSpec, Any], None]:
    def put(spec: types.JobSpec, value: Any) -> None:
        setattr(spec, key, choice(value, key, values))

    return put


_APART: Final = ("workdir", "files", "secrets", "jupyter")
_SETTERS: Final[Mapping[str, Callable[[types.JobSpec, Any], None]]] = {
    "type": _choice("type", _TYPES),
    "name": _text("name", "display_name"),
    "commands": _commands,
    "resources": set_resources,
    "nodes": _nodes,
    "priority": _integer("priority", 100),
    "tier": _choice("tier", TIERS),
    "purpose": _choice("purpose", _PURPOSES),
    "max_duration": _span_ms("max_duration"),
    "budget": _money("budget", "budget_nano"),
    "max_price": _money("max_price", "max_price_nano_per_hour"),
    "env": _env,
    "outputs": _outputs,
    "runtime": _text("runtime", "runtime"),
    "image": _text("image", "image"),
    "lost_after": _span_ms("lost_after"),
    "max_attempts": _integer("max_attempts", 100),
    "notice": _span_ms("notice"),
    "deferrable": _span_ms("deferrable"),
    "min_runtime": _span_ms("min_runtime"),
    "expected_duration": _span_ms("expected_duration"),
    "idle_stop": _span_ms("idle_stop"),
    "ssh_keys": _ssh_keys,
    **placement.SETTERS,
}
KEYS: Final = (*_SETTERS, *_APART)
