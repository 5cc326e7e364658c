"""NATS servers from the templates of ``deploy/nats``, and a link that can be cut."""

import asyncio
import contextlib
import http.client
import signal
import subprocess
from pathlib import Path

from gridlease_mesh import credentials, topology
from gridlease_mesh.embedded import find_binary
from gridlease_testkit.ports import free_port
from gridlease_testkit.waiting import eventually_sync

TEMPLATES = Path(__file__).parents[3] / "deploy" / "nats"
HERE = "127.0.0.1"


class Broker:
    """One nats-server over one folder."""

    def __init__(self, folder, authority, template, **values):
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "trust.conf").write_text(topology.trust(authority))
        self.port, self.monitor = free_port(), free_port()
        known = {"LISTEN": f"{HERE}:{self.port}", "MONITOR": f"{HERE}:{self.monitor}"}
        text = (TEMPLATES / template).read_text()
        if "STORE" in topology.placeholders(text):
            known["STORE"] = str(folder / "jetstream")
        self.config = folder / "nats.conf"
        self.config.write_text(topology.render(text, {**known, **values}))
        self.process = None

    @property
    def url(self):
        return f"nats://{HERE}:{self.port}"

    def start(self, *, wait=True):
        log = (self.folder / "nats.log").open("ab")
        command = [str(find_binary()), "-c", str(self.config)]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        log.close()
        if wait:
            self.wait_ready()

    def wait_ready(self):
        eventually_sync(self.healthy, timeout_s=20.0, what=f"{self.folder.name} answers")

    def healthy(self):
        assert self.process.poll() is None, (self.folder / "nats.log").read_text()
        connection = http.client.HTTPConnection(HERE, self.monitor, timeout=1.0)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        return False

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5.0)
            except subprocess.TimeoutExpired:
                self.kill()


def node_creds(authority, folder, node_id):
    seed, public = credentials.new_user_key()
    path = folder / f"{node_id}.creds"
    credentials.write_creds(path, authority.mint_node_user(node_id, public), seed)
    return path


class Link:
    """A TCP path to a port that may be cut and healed."""

    def __init__(self, port):
        self._target = port
        self._writers = set()
        self.port = 0
        self._server = None

    async def open(self):
        self._server = await asyncio.start_server(self._carry, HERE, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self):
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _carry(self, reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(HERE, self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._writers -= {writer, far_writer}

    async def _pump(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
