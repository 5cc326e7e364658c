"""The words of documents, in the languages that they come in."""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "INVOICE": "Invoice",
        "CREDIT_NOTE": "Credit note",
        "DRAFT": "Draft, not an invoice",
        "number": "Number",
        "name": "Name",
        "issued": "Issued",
        "cites": "Credits invoice",
        "seller": "Issued by",
        "buyer": "Bill to",
        "tax_id": "Tax number",
        "tenant": "Tenant",
        "project": "Project",
        "job": "Job",
        "position": "No.",
        "charge": "Charge",
        "lease": "Lease",
        "rented": "Rented",
        "rate": "Rate / h",
        "quantity": "Quantity",
        "amount": "Amount",
        "billed": "Billed",
        "total": "Total, exact",
        "net": "Total, rounded once",
        "tax": "Tax",
        "payable": "Payable",
        "sha256": "SHA-256",
        "run": "Run time",
        "run_priority": "Priority",
        "egress": "Network egress",
        "storage": "Storage",
        "energy": "Energy",
        "provision": "Provisioning",
        "free": "free quota",
        "minimum": "minimum",
        "site_energy": "Energy drawn at the site",
        "carbon": "Grid emissions, CO2e",
        "embodied": "Share of manufacture, CO2e",
        "CORRECTION": "Correction",
        "CREDIT": "Credit",
        "PURCHASE": "Purchase",
        "reclaim_credit": "Notice not given",
        "sla_credit": "Service level",
        "availability_credit": "Availability",
        "promo_credit": "Promotion",
        "commitment": "Capacity bought ahead",
        "cover": "Covered usage",
        "commitment_cover": "Usage covered by capacity bought ahead",
        "rule": (
            "Amount = rate x hours, rounded down to 1e-9. Billed amounts are rounded once, by"
            " largest remainder; tax is computed once, on their total. Currency: "
        ),
    },
    "zh": {
        "INVOICE": "账单",
        "CREDIT_NOTE": "贷项通知单",
        "DRAFT": "草稿,并非正式账单",
        "number": "编号",
        "name": "名称",
        "issued": "开具时间",
        "cites": "冲减账单",
        "seller": "开具方",
        "buyer": "客户",
        "tax_id": "税号",
        "tenant": "租户",
        "project": "项目",
        "job": "作业",
        "position": "序号",
        "charge": "费用",
        "lease": "租约",
        "rented": "租用",
        "rate": "单价/小时",
        "quantity": "数量",
        "amount": "金额",
        "billed": "应收",
        "total": "合计(精确)",
        "net": "合计(一次舍入)",
        "tax": "税额",
        "payable": "应付",
        "sha256": "SHA-256",
        "run": "运行时间",
        "run_priority": "优先级",
        "egress": "出站流量",
        "storage": "存储",
        "energy": "电能",
        "provision": "准备时间",
        "free": "免费额度",
        "minimum": "最低消费",
        "site_energy": "站点用电",
        "carbon": "电网排放(二氧化碳当量)",
        "embodied": "制造排放分摊(二氧化碳当量)",
        "CORRECTION": "更正",
        "CREDIT": "抵扣",
        "PURCHASE": "购买",
        "reclaim_credit": "未提前通知",
        "sla_credit": "服务等级",
        "availability_credit": "可用性",
        "promo_credit": "优惠",
        "commitment": "预购容量",
        "cover": "已覆盖用量",
        "commitment_cover": "预购容量已覆盖的用量",
        "rule": (
            "金额 = 单价 x 小时数,向下舍入到 1e-9。"
            "应收金额按最大余数法一次舍入;税额只按合计计算一次。币种:"
        ),
    },
}
LANGUAGES = tuple(WORDS)
_NOTES_ZH: Mapping[str, str] = {
    "not priced": "不计价",
    "late usage": "迟报用量",
    "metered": "计量",
    "estimated": "估算",
    "overhead of the site not known": "站点损耗未知",
    "intensity of the grid not known": "电网碳强度未知",
    "used": "已用",
    "unused": "未用",
    "No tax is charged: the issuer is not registered for it.": "不征税:开具方未登记纳税。",
    "Reverse charge: the tax is owed by the recipient (Directive 2006/112/EC, art. 196).": (
        "反向征税:税款由接收方缴纳(2006/112/EC 指令第 196 条)。"
    ),
}


def word(language: str, key: str) -> str:
    """A word; one that has none stands for itself."""
    return WORDS[language].get(key, key)


def note(language: str, text: str) -> str:
    """A note of the platform's own; what people wrote stays as it is."""
    return _NOTES_ZH.get(text, text) if language == "zh" else text


def notes(language: str, text: str) -> str:
    """Of several parts, each by itself."""
    return "; ".join(note(language, part) for part in text.split("; "))
