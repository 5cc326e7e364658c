"""The typed async client: one method for each thing that a tenant or an operator does.

Answers are the wire's own messages (``gridlease.type.v1``); trouble is a ``Fault``. Creates carry
a ``request_id`` made once a call, so they are safe to repeat; streams come back by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import fleet_pb2, job_pb2, money_pb2

from gridlease_sdk import where
from gridlease_sdk.capacitycalls import CapacityCalls
from gridlease_sdk.channel import Connection
from gridlease_sdk.contractcalls import ContractCalls
from gridlease_sdk.invoicecalls import InvoiceCalls
from gridlease_sdk.jobcalls import ENDED, JobCalls
from gridlease_sdk.jobfile import Draft
from gridlease_sdk.officecalls import OfficeCalls
from gridlease_sdk.pricecalls import PriceCalls
from gridlease_sdk.reportcalls import ReportCalls
from gridlease_sdk.sessioncalls import SessionCalls


class Client(
    JobCalls,
    CapacityCalls,
    InvoiceCalls,
    SessionCalls,
    ReportCalls,
    ContractCalls,
    OfficeCalls,
    PriceCalls,
):
    """A connection to the platform with one API key."""

    @classmethod
    def connect(
        cls,
        endpoint: str,
        api_key: str,
        *,
        timeout_s: float = 60.0,
        patience_s: float = 30.0,
        ca_file: Path | None = None,
    ) -> Self:
        """A client for an endpoint and a key; see ``Connection``. Needs a running event loop."""
        return cls(
            Connection(
                endpoint, api_key, timeout_s=timeout_s, patience_s=patience_s, ca_file=ca_file
            )
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, *, operator: bool = False) -> Self:
        """A client for what the environment or the client file says; see ``where``.

        Raises:
            Precondition, Unauthenticated, Invalid: they say too little.
        """
        found = where.find(environ, operator=operator)
        ca_file = environ.get("GRIDLEASE_CA_FILE", "")
        return cls.connect(
            found.endpoint, found.api_key, ca_file=Path(ca_file) if ca_file else None
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection."""
        await self._on.close()

    # Fleet

    async def list_nodes(self) -> list[fleet_pb2.Node]:
        """All nodes. Operators."""
        found: list[fleet_pb2.Node] = []
        request = pb.ListNodesRequest(page_size=1_000)
        while True:
            page = await self._on.ask(self._on.fleet.ListNodes, request, pb.ListNodesResponse)
            found.extend(page.nodes)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    async def get_node(self, name: str) -> fleet_pb2.Node:
        """One node. Operators."""
        request = pb.GetNodeRequest(name=name)
        return (await self._on.ask(self._on.fleet.GetNode, request, pb.GetNodeResponse)).node

    async def list_offers(self, *, chip: str = "") -> list[fleet_pb2.Offer]:
        """Chips, with what is free and what it costs."""
        request = pb.ListOffersRequest(chip=chip)
        answer = await self._on.ask(self._on.fleet.ListOffers, request, pb.ListOffersResponse)
        return list(answer.offers)

    async def create_node_token(
        self, *, node_id: str = "", site: str = "", ttl_ms: int = 0
    ) -> pb.CreateNodeTokenResponse:
        """A one-time token for a new node. Operators."""
        request = pb.CreateNodeTokenRequest(node_id=node_id, site=site, ttl_ms=ttl_ms)
        return await self._on.ask(
            self._on.fleet.CreateNodeToken, request, pb.CreateNodeTokenResponse, again=False
        )

    async def cordon_node(
        self, name: str, *, cordoned: bool = True, note: str = "", for_ms: int = 0
    ) -> fleet_pb2.Node:
        """Stop or resume giving new work to a node, for ever or for a while. Operators."""
        request = pb.CordonNodeRequest(name=name, cordoned=cordoned, note=note, for_ms=for_ms)
        return (await self._on.ask(self._on.fleet.CordonNode, request, pb.CordonNodeResponse)).node

    async def revoke_node(self, name: str) -> fleet_pb2.Node:
        """Cut a node off: its credential ends now. Operators."""
        request = pb.RevokeNodeRequest(name=name)
        return (await self._on.ask(self._on.fleet.RevokeNode, request, pb.RevokeNodeResponse)).node

    async def drain_node(
        self, name: str, *, notice_ms: int = 0, note: str = ""
    ) -> pb.DrainNodeResponse:
        """Empty a node: what runs there is placed elsewhere, with notice. Operators."""
        request = pb.DrainNodeRequest(name=name, notice_ms=notice_ms, note=note)
        return await self._on.ask(self._on.fleet.DrainNode, request, pb.DrainNodeResponse)

    async def set_node_topology(
        self, name: str, *, rack: str = "", rail: str = ""
    ) -> fleet_pb2.Node:
        """Say where a node stands; what is left empty the node says itself. Operators."""
        request = pb.SetNodeTopologyRequest(name=name, rack=rack, rail=rail)
        answer = await self._on.ask(
            self._on.fleet.SetNodeTopology, request, pb.SetNodeTopologyResponse
        )
        return answer.node

    # Money

    async def quote(
        self, draft: Draft | job_pb2.JobSpec, *, duration_ms: int = 0
    ) -> money_pb2.Quote:
        """What a job would cost."""
        spec = draft.spec if isinstance(draft, Draft) else draft
        request = pb.GetQuoteRequest(spec=spec, duration_ms=duration_ms)
        return (await self._on.ask(self._on.billing.GetQuote, request, pb.GetQuoteResponse)).quote

    async def balance(self) -> money_pb2.Balance:
        """What the tenant has."""
        answer = await self._on.ask(
            self._on.billing.GetBalance, pb.GetBalanceRequest(), pb.GetBalanceResponse
        )
        return answer.balance

    async def list_usage(self, *, job: str = "", limit: int = 100) -> list[money_pb2.UsageLine]:
        """Usage lines as they stand, newest lease first, at most ``limit``."""
        found: list[money_pb2.UsageLine] = []
        request = pb.ListUsageRequest(job=job)
        while len(found) < limit:
            request.page_size = limit - len(found)
            page = await self._on.ask(self._on.billing.ListUsage, request, pb.ListUsageResponse)
            found.extend(page.lines)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        return found

    async def create_credit(
        self, tenant: str, amount_nano: int, *, note: str = "", request_id: str = ""
    ) -> money_pb2.Balance:
        """Pay credit in for a tenant. Operators."""
        request = pb.CreateCreditRequest(
            tenant=tenant,
            amount_nano=amount_nano,
            note=note,
            request_id=request_id or self._ids.new("rq"),
        )
        answer = await self._on.ask(self._on.billing.CreateCredit, request, pb.CreateCreditResponse)
        return answer.balance

    async def journal_summary(self) -> pb.GetJournalSummaryResponse:
        """The books' state. Operators."""
        return await self._on.ask(
            self._on.billing.GetJournalSummary,
            pb.GetJournalSummaryRequest(),
            pb.GetJournalSummaryResponse,
        )

    # Access

    async def caller(self) -> pb.GetCallerResponse:
        """Who the key says we are."""
        return await self._on.ask(
            self._on.access.GetCaller, pb.GetCallerRequest(), pb.GetCallerResponse
        )

    async def create_tenant(self, tenant_id: str, project_id: str = "") -> pb.CreateTenantResponse:
        """A tenant with a first project. Operators."""
        request = pb.CreateTenantRequest(tenant_id=tenant_id, project_id=project_id)
        return await self._on.ask(
            self._on.access.CreateTenant, request, pb.CreateTenantResponse, again=False
        )

    async def create_api_key(
        self,
        *,
        project: str = "",
        operator: bool = False,
        display_name: str = "",
        ttl_ms: int = 0,
    ) -> pb.CreateApiKeyResponse:
        """A key with its secret, shown once."""
        request = pb.CreateApiKeyRequest(
            project=project,
            role=pb.ROLE_OPERATOR if operator else pb.ROLE_TENANT,
            display_name=display_name,
            ttl_ms=ttl_ms,
        )
        return await self._on.ask(
            self._on.access.CreateApiKey, request, pb.CreateApiKeyResponse, again=False
        )

    async def list_api_keys(self, *, project: str = "") -> list[pb.ApiKey]:
        """Keys without their secrets, newest first."""
        request = pb.ListApiKeysRequest(project=project)
        answer = await self._on.ask(self._on.access.ListApiKeys, request, pb.ListApiKeysResponse)
        return list(answer.api_keys)

    async def revoke_api_key(self, name: str) -> pb.ApiKey:
        """End a key at once."""
        request = pb.RevokeApiKeyRequest(name=name)
        answer = await self._on.ask(self._on.access.RevokeApiKey, request, pb.RevokeApiKeyResponse)
        return answer.api_key


__all__ = ["ENDED", "Client"]
