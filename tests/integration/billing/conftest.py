"""Billing's books on a real PostgreSQL of the test's own."""

import asyncpg
import pytest
from gridlease_billing.adapters.books import PostgresBooks
from gridlease_billing.bootstrap import ROLE
from gridlease_kernel.clock import SystemClock
from gridlease_store.connect import with_jsonb
from gridlease_store.migrate import migrate
from gridlease_store.pool import connect_pool

from tests.integration.billing.world import World


@pytest.fixture
async def dsn(postgres):
    """The owner's DSN of a database with billing's schema."""
    template = await postgres.template(
        "billing", lambda owner: migrate(owner, "billing", "gridlease_billing", login=True)
    )
    name = await postgres.create(template)
    yield postgres.dsn(name)
    await postgres.drop(name)


@pytest.fixture
async def pool(dsn):
    """The service's role, but looking at every tenant's rows outside of any work."""
    settings = {"search_path": "billing", "role": ROLE, "gridlease.tenant": "*"}
    pool = await asyncpg.create_pool(
        dsn, min_size=1, max_size=4, server_settings=settings, init=with_jsonb
    )
    yield pool
    pool.terminate()


@pytest.fixture
async def service_pool(dsn):
    """Connections as the service has them."""
    pool = await connect_pool(dsn, schema="billing", role=ROLE, max_size=16)
    yield pool
    pool.terminate()


@pytest.fixture
def books(service_pool):
    return PostgresBooks(service_pool, SystemClock(), 600_000)


@pytest.fixture
async def world(books, pool):
    """A priced chip and a tenant with 100 USD; its checks run after each test."""
    world = World(books, pool)
    await world.begin()
    yield world
    await world.check()
