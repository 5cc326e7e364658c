"""One world's database, and who kills what works on it."""

from __future__ import annotations

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import asyncpg
from gridlease_billing.bootstrap import ROLE
from gridlease_store.connect import with_jsonb

CONNECTIONS = 8
STARTER = ThreadPoolExecutor(1)  # a server ends with the thread that started it: this one lasts
_CLOCK = """
CREATE TABLE sim_clock (ms int8 NOT NULL);
INSERT INTO sim_clock VALUES ({ms});
CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS
    $$ SELECT timestamptz 'epoch' + ms * interval '1 millisecond' FROM billing.sim_clock $$;
GRANT SELECT ON sim_clock TO {role};
DO $$
DECLARE
    name regprocedure;
BEGIN
    FOR name IN SELECT oid FROM pg_proc WHERE pronamespace = 'billing'::regnamespace
        AND prosrc LIKE '%clock_timestamp()%' AND proconfig IS NOT NULL
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = billing, pg_catalog', name);
    END LOOP;
END $$;
SELECT create_months({ms}, 3);
"""


class Place:
    """One world's database, and who kills what works on it."""

    def __init__(self, tester, name):
        self.tester, self.name = tester, name
        self.dsn = tester.dsn(name)
        self.pool = self.admin = None

    async def open(self, ms):
        owner = await asyncpg.connect(self.dsn, server_settings={"search_path": "billing"})
        await owner.execute(_CLOCK.format(ms=ms, role=ROLE))
        await owner.close()
        self.admin = await self._connect()
        settings = {"search_path": "billing,pg_catalog", "role": ROLE, "statement_timeout": "20000"}
        self.pool = await asyncpg.create_pool(
            self.dsn, min_size=1, max_size=CONNECTIONS, command_timeout=20, init=with_jsonb,
            server_settings=settings,
        )  # fmt: skip

    async def _connect(self):
        settings = {"search_path": "billing", "gridlease.tenant": "*", "application_name": "sim",
                    "jit": "off", "enable_nestloop": "off"}  # fmt: skip
        return await asyncpg.connect(self.dsn, server_settings=settings)

    async def set_clock(self, ms):
        await self.admin.execute("UPDATE sim_clock SET ms = $1", ms)

    async def kill_backends(self, count):
        await self.admin.execute(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name <> 'sim'"
            " ORDER BY random() LIMIT $1) AS t", count,
        )  # fmt: skip

    async def kill_server(self):
        """All of it at once, and up again; meanwhile calls find nobody."""
        os.kill(self.tester.server.pid, signal.SIGKILL)
        await asyncio.get_running_loop().run_in_executor(STARTER, self.tester.server.start)
        self.admin.terminate()
        self.admin = await self._connect()

    async def close(self):
        self.pool.terminate()
        await self.admin.close()
        await self.tester.drop(self.name)
