"""Commands of ``gridlease`` as processes that need not import it first: forked from one that has.

``python -m tests.integration.gateway.commands SOCKET`` serves; it ends with its standard input.
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_STARTS_S = 30.0


class Commands:
    """A running server of commands."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gl-commands-")
        self._path = f"{self._folder.name}/s"
        command = [sys.executable, "-m", __name__, self._path]
        self._server = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        ready, _, _ = select.select([self._server.stdout], [], [], _STARTS_S)
        assert ready, "the commands are not imported in time"
        assert self._server.stdout.readline() == b"ready\n"

    def run(self, words, env, cwd, timeout_s):
        """Exit code, standard output and standard error."""
        with (
            socket.socket(socket.AF_UNIX) as asked,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as errors,
        ):
            asked.settimeout(timeout_s)
            asked.connect(self._path)
            question = json.dumps([list(words), env, str(cwd)]).encode() + b"\n"
            socket.send_fds(asked, [question], [out.fileno(), errors.fileno()])
            answer = asked.makefile("r")
            pid = int(answer.readline())
            try:
                code = answer.readline()
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
            out.seek(0)
            errors.seek(0)
            return int(code or -1), out.read(), errors.read()


@functools.cache
def commands() -> Commands:
    """The one of this process; it is started when it is first asked for."""
    return Commands()


def serve(path: str) -> None:
    """Runs each command that is asked for in a fork."""
    import gridlease_cli.__main__ as cli

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits: they say their code themselves
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen(64)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([door, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            asked, _ = door.accept()
            if os.fork() == 0:
                door.close()
                _command(cli, asked)
            asked.close()


def _command(cli, asked: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    question, files, _, _ = socket.recv_fds(asked, 1 << 20, 2)
    while not question.endswith(b"\n"):
        question += asked.recv(1 << 20)
    words, env, cwd = json.loads(question)
    asked.sendall(b"%d\n" % os.getpid())
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
    code = 1
    try:
        code = cli.run(words)
    except BaseException:  # noqa: BLE001 - whatever it is: told as a new Python would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        asked.sendall(b"%d\n" % code)
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
