"""Runs in a frozen sandbox: imports what tasks want, waits, then becomes the task.

``python3 -c SOURCE MODULE ...``, with nothing of the agent at hand: the standard library alone.
It says that it is warm by a file, and is frozen there. Thawed, it finds a byte in the FIFO and
the task beside it: a command of Python's own runs in this process, anything else in its place.
"""

# Every module more is paid for by each frozen sandbox: pathlib stays out.
# ruff: noqa: PTH100, PTH103, PTH120, PTH123

import importlib
import json
import os
import re
import runpy
import select
import shlex
import sys

ROOM = "/run/gridlease"


def main(modules: list[str]) -> None:
    """Never returns before the task has ended."""
    for name in modules:
        importlib.import_module(name)
    # Open before it says so: a byte that is written while it is frozen must find a reader.
    go = os.open(f"{ROOM}/go", os.O_RDONLY | os.O_NONBLOCK)
    os.makedirs("/work/.gridlease", exist_ok=True)
    os.close(os.open("/work/.gridlease/warm", os.O_CREAT | os.O_WRONLY, 0o644))
    waiting = select.poll()
    waiting.register(go, select.POLLIN)
    waiting.poll()
    os.close(go)
    with open(f"{ROOM}/launch.json", encoding="utf-8") as file:
        launch = json.load(file)
    os.environ.clear()
    os.environ.update(launch["env"])
    os.chdir(launch["cwd"])
    become(launch["commands"], launch["argv"])


def plain(command: str) -> bool:
    """Would a shell do nothing with it but split it?"""
    bare = re.sub(r"'[^']*'|\"[^\"$`\\\\]*\"", "", command)
    return not set(bare) & set("|&;<>()$`*?[]{}#~!=\\\n\"'")


def become(commands: list[str], argv: list[str]) -> None:
    """The task: in this process where it is one plain call of Python."""
    words = shlex.split(commands[0]) if len(commands) == 1 and plain(commands[0]) else []
    if words[:1] in (["python"], ["python3"]):
        rest = words[1:]
        if rest[:1] == ["-u"]:
            rest = rest[1:]
        if rest[:1] == ["-c"] and len(rest) > 1:
            sys.argv = ["-c", *rest[2:]]
            scope = {"__name__": "__main__", "__builtins__": __builtins__}
            sys.path.insert(0, "")
            exec(compile(rest[1], "<string>", "exec"), scope)  # noqa: S102 - the task's own code
            return
        if rest[:1] == ["-m"] and len(rest) > 1:
            sys.argv = rest[1:]
            sys.path.insert(0, "")
            runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
            return
        if rest and not rest[0].startswith("-"):
            sys.argv = rest
            sys.path.insert(0, os.path.dirname(os.path.abspath(rest[0])))
            runpy.run_path(rest[0], run_name="__main__")
            return
    os.execve(argv[0], argv, dict(os.environ))  # noqa: S606 - the task's own commands


if __name__ == "__main__":
    main(sys.argv[1:])
