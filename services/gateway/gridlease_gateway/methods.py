"""The one table of methods: who may call each, and whether it changes anything.

Every front end serves what stands here and nothing else; a method of the protos without a rule,
or a rule without a method, stops the start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from gridlease.gateway.v1 import contract_pb2, gateway_pb2

from gridlease_gateway.calls import Call
from gridlease_gateway.domain.keys import Role

Unary: TypeAlias = Callable[[Call, Any], Awaitable[Message]]
Stream: TypeAlias = Callable[[Call, Any], AsyncIterator[Message]]
Upload: TypeAlias = Callable[[Call, AsyncIterator[Any]], Awaitable[Message]]
Session: TypeAlias = Callable[[Call, AsyncIterator[Any]], AsyncIterator[Message]]


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call a method, and whether a call of it is audited as a change."""

    role: Role
    mutating: bool = False


_READ = Rule(Role.TENANT)
_CHANGE = Rule(Role.TENANT, mutating=True)
_OPERATOR_READ = Rule(Role.OPERATOR)
_OPERATOR_CHANGE = Rule(Role.OPERATOR, mutating=True)

RULES: Final[Mapping[str, Rule]] = {
    "JobService.CreateJob": _CHANGE,
    "JobService.PlanJob": _READ,
    "JobService.GetJob": _READ,
    "JobService.ListJobs": _READ,
    "JobService.CancelJob": _CHANGE,
    "JobService.WakeJob": _CHANGE,
    "JobService.ExplainJob": _READ,
    "JobService.WatchJob": _READ,
    "JobService.ReadJobLogs": _READ,
    "JobService.ListArtefacts": _READ,
    "JobService.ReadArtefact": _READ,
    "JobService.UploadBundle": _CHANGE,
    "JobService.ListEvents": _READ,
    "JobService.WatchEvents": _READ,
    "SessionService.ExecJob": _CHANGE,
    "SessionService.AttachJob": _READ,
    "SessionService.ForwardJob": _CHANGE,
    "FleetService.ListNodes": _OPERATOR_READ,
    "FleetService.GetNode": _OPERATOR_READ,
    "FleetService.ListOffers": _READ,
    "FleetService.CreateNodeToken": _OPERATOR_CHANGE,
    "FleetService.EnrolNode": Rule(Role.ANYONE, mutating=True),
    "FleetService.CordonNode": _OPERATOR_CHANGE,
    "FleetService.DrainNode": _OPERATOR_CHANGE,
    "FleetService.SetNodeTopology": _OPERATOR_CHANGE,
    "FleetService.RevokeNode": _OPERATOR_CHANGE,
    "CapacityService.ListQuotas": _READ,
    "CapacityService.SetQuota": _OPERATOR_CHANGE,
    "CapacityService.ListShares": _OPERATOR_READ,
    "CapacityService.SetShare": _OPERATOR_CHANGE,
    "CapacityService.ListSites": _OPERATOR_READ,
    "CapacityService.SetSite": _OPERATOR_CHANGE,
    "CapacityService.ListLinks": _OPERATOR_READ,
    "CapacityService.SetLink": _OPERATOR_CHANGE,
    "CapacityService.ListReservations": _READ,
    "CapacityService.CreateReservation": _OPERATOR_CHANGE,
    "CapacityService.CancelReservation": _CHANGE,
    "BillingService.GetQuote": _READ,
    "BillingService.GetBalance": _READ,
    "BillingService.ListUsage": _READ,
    "BillingService.CreateInvoice": _CHANGE,
    "BillingService.GetInvoice": _READ,
    "BillingService.ListInvoices": _READ,
    "BillingService.RenderInvoice": _READ,
    "BillingService.ListPrices": _READ,
    "BillingService.CreatePrice": _OPERATOR_CHANGE,
    "BillingService.ListPriorityMultipliers": _READ,
    "BillingService.CreatePriorityMultipliers": _OPERATOR_CHANGE,
    "BillingService.CreateCredit": _OPERATOR_CHANGE,
    "BillingService.FinalizeInvoice": _CHANGE,
    "BillingService.CreateCreditNote": _OPERATOR_CHANGE,
    "BillingService.ListMeterReports": _READ,
    "BillingService.GetTaxProfile": _READ,
    "BillingService.SetTaxProfile": _OPERATOR_CHANGE,
    "BillingService.ListLegalEntities": _OPERATOR_READ,
    "BillingService.SetLegalEntity": _OPERATOR_CHANGE,
    "BillingService.ListTaxRates": _READ,
    "BillingService.CreateTaxRate": _OPERATOR_CHANGE,
    "BillingService.GetJournalSummary": _OPERATOR_READ,
    "ReportService.GetRevenue": _READ,
    "ReportService.GetBurnDown": _READ,
    "ReportService.GetJobCost": _READ,
    "ReportService.ListBudgets": _READ,
    "ReportService.SetBudget": _CHANGE,
    "ReportService.ListNotices": _READ,
    "ReportService.CheckBooks": _OPERATOR_READ,
    "ReportService.ListSuspense": _OPERATOR_READ,
    "ReportService.WriteOffSuspense": _OPERATOR_CHANGE,
    "ReportService.CreateWebhook": _CHANGE,
    "ReportService.ListWebhooks": _READ,
    "ReportService.DeleteWebhook": _CHANGE,
    "SupplierService.CreateSupplier": _OPERATOR_CHANGE,
    "SupplierService.ListSuppliers": _OPERATOR_READ,
    "SupplierService.CreateContract": _OPERATOR_CHANGE,
    "SupplierService.AssignNode": _OPERATOR_CHANGE,
    "SupplierService.RenderStatement": _OPERATOR_READ,
    "SupplierService.CreatePayout": _OPERATOR_CHANGE,
    "ReceivableService.GetReceivable": _READ,
    "ReceivableService.ListReceivables": _READ,
    "ReceivableService.CreatePayment": _OPERATOR_CHANGE,
    "ReceivableService.CreateRefund": _OPERATOR_CHANGE,
    "ReceivableService.ListPaymentTerms": _OPERATOR_READ,
    "ReceivableService.SetPaymentTerms": _OPERATOR_CHANGE,
    "WebhookService.CreateWebhookSecret": _CHANGE,
    "WebhookService.CreateWebhookReplay": _CHANGE,
    "WebhookService.ListDeadLetters": _READ,
    "ContractService.CreateCommitment": _CHANGE,
    "ContractService.ListCommitments": _READ,
    "ContractService.CreateTariff": _OPERATOR_CHANGE,
    "ContractService.ListTariffs": _READ,
    "ContractService.CreateExchange": _OPERATOR_CHANGE,
    "ContractService.ListFootprints": _READ,
    "ContractService.CreateEmbodied": _OPERATOR_CHANGE,
    "AccessService.GetCaller": _READ,
    "AccessService.CreateTenant": _OPERATOR_CHANGE,
    "AccessService.CreateApiKey": _CHANGE,
    "AccessService.ListApiKeys": _READ,
    "AccessService.RevokeApiKey": _CHANGE,
}


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the protos with its rule and what answers it."""

    name: str  # "JobService.CreateJob"
    path: str  # "/gridlease.gateway.v1.JobService/CreateJob"
    rule: Rule
    request: type[Message]
    client_streaming: bool
    server_streaming: bool
    handler: Callable[[Call, Any], Any]


def public_methods() -> dict[str, MethodDescriptor]:
    """Every method of the public protos, by "Service.Method"."""
    files = (gateway_pb2.DESCRIPTOR, contract_pb2.DESCRIPTOR)
    services = [service for file in files for service in file.services_by_name.values()]
    return {f"{service.name}.{it.name}": it for service in services for it in service.methods}


def table(
    handlers: Mapping[str, Callable[[Call, Any], Any]], rules: Mapping[str, Rule] = RULES
) -> dict[str, Method]:
    """The table: protos, rules and handlers must name the same methods, or nothing starts."""
    described = public_methods()
    assert set(described) == set(rules), set(described) ^ set(rules)
    assert set(described) == set(handlers), set(described) ^ set(handlers)
    return {
        name: Method(
            name=name,
            path=f"/{method.containing_service.full_name}/{method.name}",
            rule=rules[name],
            request=message_factory.GetMessageClass(method.input_type),
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
            handler=handlers[name],
        )
        for name, method in described.items()
    }
