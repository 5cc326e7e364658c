"""Suppliers and contracts over the mesh, asked of the service's own classes on a real database."""

import json

import grpc
import pytest
from gridlease.billing.v1 import contract_pb2, contract_pb2_grpc, supplier_pb2, supplier_pb2_grpc
from gridlease.type.v1 import contract_pb2 as types
from gridlease_billing.rpc.contracts import Contracts
from gridlease_billing.rpc.partners import Suppliers
from gridlease_kernel.ids import RandomIds
from gridlease_mesh.bus import Bus
from gridlease_mesh.interceptors import FaultsToStatus
from gridlease_mesh.status import fault_from_error
from gridlease_mesh.validation import ValidateRequests

from tests.integration.billing.world import CHIP, PROJECT, TENANT, USD

HOUR_S = 3_600


@pytest.fixture
async def stubs(books, nats):
    bus = await Bus.connect(nats.url, creds=nats.service_creds("billing"), name="billing")
    server = bus.server(queue="billing", interceptors=[FaultsToStatus(), ValidateRequests()])
    supplier_pb2_grpc.add_SupplierServiceServicer_to_server(Suppliers(books), server)
    contract_pb2_grpc.add_ContractServiceServicer_to_server(Contracts(books, RandomIds()), server)
    await server.start()
    channel = bus.channel()
    yield (
        supplier_pb2_grpc.SupplierServiceStub(channel),
        contract_pb2_grpc.ContractServiceStub(channel),
    )
    await server.stop(1)
    await bus.close()


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return fault_from_error(caught.value).reason


async def test_a_partner_is_named_given_terms_and_nodes_and_told_what_it_earned(world, stubs):
    partners, _ = stubs
    made = await partners.CreateSupplier(
        supplier_pb2.CreateSupplierRequest(supplier_id="acme", display_name="Acme")
    )
    assert (made.supplier.name, made.supplier.contract_version) == ("suppliers/acme", 0)
    terms = supplier_pb2.CreateContractRequest(
        supplier="suppliers/acme", share_permyriad=7_000, holdback_permyriad=1_000,
        holdback_days=30, request_id="c",
    )  # fmt: skip
    assert (await partners.CreateContract(terms)).supplier.contract_version == 1
    assert (await partners.CreateContract(terms)).supplier.contract_version == 1
    await partners.AssignNode(
        supplier_pb2.AssignNodeRequest(node="nodes/n1", supplier="suppliers/acme", request_id="n")
    )
    (found,) = (await partners.ListSuppliers(supplier_pb2.ListSuppliersRequest())).suppliers
    assert list(found.nodes) == ["nodes/n1"]
    told = await partners.RenderStatement(
        supplier_pb2.RenderStatementRequest(supplier="suppliers/acme", format="json")
    )
    assert json.loads(told.content)["supplier"] == "suppliers/acme"
    pay = supplier_pb2.CreatePayoutRequest(supplier="suppliers/acme", request_id="p")
    assert await refused(partners.CreatePayout(pay)) == "NOTHING_OWED"


async def test_tariffs_commitments_and_payments_are_written_and_told(world, stubs):
    _, contracts = stubs
    tariff = types.Tariff(meter="egress", per=2**30, steps=[types.TariffStep(price_nano=USD)])
    asked = contract_pb2.CreateTariffRequest(tariff=tariff, request_id="t")
    assert (await contracts.CreateTariff(asked)).tariff.version == 1
    backwards = types.Tariff(meter="egress", per=1, steps=[types.TariffStep(above=5)])
    bad = contract_pb2.CreateTariffRequest(tariff=backwards, request_id="t2")
    assert await refused(contracts.CreateTariff(bad)) == "BAD_TARIFF"
    (written,) = (await contracts.ListTariffs(contract_pb2.ListTariffsRequest())).tariffs
    assert (written.meter, written.steps[0].price_nano) == ("egress", USD)

    await world.price(20 * USD, "reserved", tier="RESERVED")
    now_s = await world.pool.fetchval("SELECT extract(epoch FROM now())::int8")
    buy = contract_pb2.CreateCommitmentRequest(
        tenant=TENANT, project=PROJECT, chip=CHIP, quantity_milli=1_000, request_id="b"
    )
    buy.begin_time.FromSeconds((now_s // HOUR_S + 1) * HOUR_S)
    buy.end_time.FromSeconds((now_s // HOUR_S + 3) * HOUR_S)
    bought = (await contracts.CreateCommitment(buy)).commitment
    assert bought.rate_nano_per_hour == 20 * USD
    listed = contract_pb2.ListCommitmentsRequest(tenant=TENANT)
    assert list((await contracts.ListCommitments(listed)).commitments) == [bought]

    paid = contract_pb2.CreateExchangeRequest(
        tenant=TENANT, amount_nano=12 * USD, currency="EUR", rate_numerator=13,
        rate_denominator=12, request_id="x",
    )  # fmt: skip
    answer = await contracts.CreateExchange(paid)
    assert answer.credited_nano == 13 * USD
    assert answer.balance.posted_nano == 113 * USD
    figure = contract_pb2.CreateEmbodiedRequest(
        chip=CHIP, carbon_g=150_000, life_hours=35_000, source="a study", request_id="e"
    )
    assert (await contracts.CreateEmbodied(figure)).embodied.source == "a study"
    nothing = contract_pb2.ListFootprintsRequest(tenant=TENANT)
    assert not (await contracts.ListFootprints(nothing)).footprints
