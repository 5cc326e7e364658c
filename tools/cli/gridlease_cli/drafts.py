"""A job from the command line: a file, a command after ``--``, and options over either."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gridlease_kernel.faults import Invalid
from gridlease_sdk import jobfile
from gridlease_sdk.jobfile import Draft
from gridlease_sdk.jobvalues import assignment

_RESOURCES: Final = ("cpu", "memory", "disk", "gpu")


def draft(file: str | None, command: list[str] | None, given: Mapping[str, Any]) -> Draft:
    """The job that a file or a command describes, with ``given`` keys put over it.

    Raises:
        Invalid: both, neither, or what is wrong with them.
        Missing: a file is not there.
    """
    if bool(file) == bool(command):
        raise Invalid(
            "Name a job file, or give a command after --, not both."
            if file
            else "There is nothing to run.",
            reason="NOTHING_TO_RUN",
            field="file",
            remedy="Write: gridlease submit job.yaml, or: gridlease submit -- python train.py.",
        )
    values: dict[str, Any] = {}
    folder = Path()
    if file:
        values, folder = jobfile.open_file(Path(file))
    elif command:
        values["commands"] = [command[0] if len(command) == 1 else shlex.join(command)]
    return jobfile.read(_over(values, given), folder)


def _over(values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with what was given on the line put over it, whatever name it had there."""
    for key, value in given.items():
        if value in (None, "", []):
            continue
        if key in _RESOURCES:
            resources = values.get("resources")
            target = dict(resources) if isinstance(resources, Mapping) else {}
            values["resources"] = target
        else:
            target = values
        for other in jobfile.other_names(key):
            if other in target:
                target[key] = target.pop(other)
        if key == "gpu":  # the line names one kind, instead of the file's list
            target.pop("any_of", None)
            target.pop("ordered", None)
        if key == "env":
            value = _both(target.get(key), value)  # noqa: PLW2901 - the file's own stay
        target[key] = str(Path.cwd() / value) if key == "workdir" else value
    return values


def _both(env: Any, more: list[str]) -> Any:
    """The file's variables and those of the line, which win."""
    if isinstance(env, Mapping):
        return {**env, **dict(assignment(it, "--env") for it in more)}
    return [*env, *more] if isinstance(env, list) else more
