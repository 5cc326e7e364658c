"""exec, attach, port-forward, ssh, jupyter: sessions in running tasks."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated

import typer
from gridlease_kernel.faults import Invalid, Precondition
from gridlease_sdk.client import Client

from gridlease_cli import pumps
from gridlease_cli.app import job_name, options_of, reach
from gridlease_cli.output import emit

Job = Annotated[str, typer.Argument(help="A job's name, whole or its last part")]
Task = Annotated[int, typer.Option("--task", min=0, help="Which of its tasks, from 0")]

TOKEN_FILE = "/work/.jupyter-token"  # noqa: S105 - where it stands, not what it is
JUPYTER_PORT = 8888
# Of the task's own user, on the session's own streams: no port, no daemon, no root.
_SSHD = """
set -e; umask 077; d=/work/.gridlease-ssh; mkdir -p $d
printf '%s\\n' "$GRIDLEASE_SSH_KEYS" > $d/authorized_keys
PATH=$PATH:/usr/sbin:/sbin
if s=$(command -v sshd); then
  [ -f $d/key ] || ssh-keygen -q -t ed25519 -N '' -f $d/key
  exec "$s" -i -f /dev/null -h $d/key -o AuthorizedKeysFile=$d/authorized_keys \\
    -o StrictModes=no -o UsePAM=no -o PasswordAuthentication=no \\
    -o KbdInteractiveAuthentication=no -o PidFile=none -o Subsystem='sftp internal-sftp'
fi
echo "gridlease: there is no sshd in this environment; use an image that has openssh-server," >&2
echo "gridlease: or gridlease ssh without --proxy, which needs none." >&2
exit 69
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("exec")(exec_)
    app.command("attach")(attach)
    app.command("port-forward")(port_forward)
    app.command("ssh")(ssh)
    app.command("jupyter")(jupyter)


def exec_(
    context: typer.Context,
    job: Job,
    terminal: Annotated[
        bool | None, typer.Option("--tty/--no-tty", "-t/-T", help="A terminal; else as ours is")
    ] = None,
    stdin: Annotated[
        bool | None, typer.Option("--stdin/--no-stdin", "-i/-I", help="Pass our input on")
    ] = None,
    folder: Annotated[str, typer.Option(help="The folder to start in, as the task sees it")] = "",
    task: Task = 0,
) -> None:
    """Run a program beside a job's task: gridlease exec JOB -- COMMAND; without one, a shell."""
    options = options_of(context)
    command = options.command or []
    tty = sys.stdin.isatty() and sys.stdout.isatty() if terminal is None else terminal
    feeds = (tty or not sys.stdin.isatty()) if stdin is None else stdin

    async def work(client: Client) -> int:
        name = await job_name(client, job)
        return await pumps.run(
            client, name, command, tty=tty, stdin=feeds, folder=folder, task=task
        )

    raise typer.Exit(reach(options, work))


def attach(
    context: typer.Context,
    job: Job,
    tail: Annotated[
        int, typer.Option(min=0, max=1 << 20, help="So many bytes of what was written already")
    ] = 0,
    task: Task = 0,
) -> None:
    """A job's output from now on, until it has ended; it takes no input."""
    options = options_of(context)

    async def work(client: Client) -> None:
        name = await job_name(client, job)
        async with contextlib.aclosing(
            client.attach(name, tail_bytes=tail, task_index=task)
        ) as pieces:
            async for piece in pieces:
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()

    reach(options, work)


def port_forward(
    context: typer.Context,
    job: Job,
    ports: Annotated[
        list[str], typer.Argument(help="LOCAL:REMOTE or PORT; REMOTE may be a UNIX socket's path")
    ],
    task: Task = 0,
) -> None:
    """Listen here, on the loopback interface, and carry each connection into a job's task."""
    options = options_of(context)
    pairs = [_pair(it) for it in ports]

    async def work(client: Client) -> None:
        name = await job_name(client, job)
        await client.get_job(name)
        async with contextlib.AsyncExitStack() as stack:
            for local, remote in pairs:
                port = await stack.enter_async_context(
                    pumps.listening(client, name, local, remote, task)
                )
                pair = {"local": port, "remote": str(remote)}
                if options.format == "table":
                    print(f"127.0.0.1:{port} -> {remote}", flush=True)
                else:
                    emit(options, pair)
                    sys.stdout.flush()
            await pumps.forever()

    reach(options, work)


def ssh(
    context: typer.Context,
    job: Job,
    proxy: Annotated[
        bool, typer.Option("--proxy", help="Be OpenSSH's ProxyCommand: needs sshd in the task")
    ] = False,
    config: Annotated[bool, typer.Option("--config", help="Print lines for ~/.ssh/config")] = False,
    task: Task = 0,
) -> None:
    """A shell in a job's task; with --proxy, the way for ssh, scp, rsync and editors."""
    options = options_of(context)
    if config:
        print(_config(job))
        return

    async def work(client: Client) -> int:
        name = await job_name(client, job)
        if not proxy:
            tty = sys.stdin.isatty() and sys.stdout.isatty()
            return await pumps.run(
                client, name, options.command or [], tty=tty, stdin=True, task=task
            )
        keys = (await client.get_job(name)).spec.ssh_keys
        if not keys:
            raise Precondition(
                f"{name} names no SSH key.",
                reason="NO_SSH_KEYS",
                field="ssh_keys",
                remedy="Write your public key into the job file: ssh_keys: [ssh-ed25519 AAAA...].",
            )
        env = {"GRIDLEASE_SSH_KEYS": "\n".join(keys)}
        argv = ["/bin/sh", "-c", _SSHD]
        return await pumps.run(client, name, argv, tty=False, stdin=True, env=env, task=task)

    raise typer.Exit(reach(options, work))


def jupyter(
    context: typer.Context,
    job: Job,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of ours; 0 = any free one")] = 0,
    task: Task = 0,
) -> None:
    """Reach a job's Jupyter from this machine; prints the address with its token."""
    options = options_of(context)

    async def work(client: Client) -> None:
        name = await job_name(client, job)
        token = await pumps.said(client, name, ["cat", TOKEN_FILE], task)
        if not token:
            raise Precondition(
                f"No Jupyter of {name} has begun yet.",
                reason="NO_JUPYTER",
                field="jupyter",
                remedy="Write jupyter: true into a dev-environment's job file; see its logs.",
            )
        async with pumps.listening(client, name, port, JUPYTER_PORT, task) as local:
            url = f"http://127.0.0.1:{local}/lab?token={token}"
            if options.format == "table":
                print(url, flush=True)
            else:
                emit(options, {"url": url, "local": local})
                sys.stdout.flush()
            await pumps.forever()

    reach(options, work)


def _pair(text: str) -> tuple[int, int | str]:
    """LOCAL:REMOTE, or one number for both.

    Raises:
        Invalid: PORTS_MALFORMED.
    """
    first, _, second = text.partition(":")
    remote: int | str = second if second.startswith("/") else _port(second or first, text)
    return _port(first, text), remote


def _port(word: str, text: str) -> int:
    if word.isdecimal() and int(word) <= 65_535:
        return int(word)
    raise Invalid(
        f"{text!r} names no ports.",
        reason="PORTS_MALFORMED",
        field="ports",
        remedy="Write LOCAL:REMOTE, such as 8080:80, or 0:80 for any free local port.",
    )


def _config(job: str) -> str:
    own = sys.argv[0] if os.path.basename(sys.argv[0]) == "gridlease" else "gridlease"  # noqa: PTH119
    return f"""Host {job}.gridlease
  User task
  ProxyCommand {own} ssh --proxy {job}
  # The platform has proved who is who; the host's own key is made anew with every lease.
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null"""
