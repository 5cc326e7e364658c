"""The operator's part of identity, offline: keys and tokens as files, nothing asked of a broker.

gridlease ca init KEYS                    make the keys, once; keep them offline
gridlease ca broker KEYS > trust.conf     whom a broker trusts; no secret in it
gridlease ca role KEYS scheduler [--ttl-s N]    a room's credentials file
gridlease ca leaf KEYS factory-1 NODE …   a factory's credentials file
gridlease ca node KEYS NODE PUBLIC_KEY [--ttl-s N]    a node's token, by hand
gridlease ca revoke KEYS PUBLIC_KEY       void; then write trust.conf, reload

Each takes --prefix where the subjects do not begin with gl. Of KEYS the scheduler's machine needs
signing.seed and signing.account, and each room its role-NAME.creds; the rest stays offline.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gridlease_kernel.faults import Fault, Precondition

from gridlease_mesh import subjects, topology
from gridlease_mesh.credentials import NODE_TTL_S, Authority, new_user_key, write_creds


def make(keys: Path, prefix: str = subjects.DEFAULT_PREFIX) -> Authority:
    """The keys of a new installation.

    Raises:
        Precondition: KEYS_EXIST, there are some.
    """
    if (keys / "operator.seed").exists():
        raise Precondition(
            f"{keys} holds the keys of an installation already.",
            reason="KEYS_EXIST",
            field="KEYS",
            remedy="Use them, or choose another folder: whoever trusts them would not trust new.",
        )
    authority = Authority(keys, prefix=prefix)
    authority.operator_token()
    return authority


def read(keys: Path, prefix: str = subjects.DEFAULT_PREFIX) -> Authority:
    """The keys of an installation.

    Raises:
        Precondition: KEYS_MISSING, or damaged.
    """
    if not (keys / "operator.seed").is_file():
        raise Precondition(
            f"{keys} holds no keys.",
            reason="KEYS_MISSING",
            field="KEYS",
            remedy="Point to the folder that `ca init` made.",
        )
    return Authority(keys, prefix=prefix)


def leaf(authority: Authority, keys: Path, factory: str, nodes: Sequence[str], prefix: str) -> Path:
    """A factory broker's credentials file, for the names of its nodes; the key is made anew.

    Raises:
        Invalid: a malformed name, or no nodes.
    """
    name = subjects.check_token(factory, "factory")
    seed, public = new_user_key()
    allow = topology.leaf_permissions(nodes, prefix)
    path = keys / f"leaf-{name}.creds"
    write_creds(path, authority.signer.user(public, f"leaf:{name}", allow, None), seed)
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gridlease ca", allow_abbrev=False, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True)
    words = {
        "init": (), "broker": (), "role": ("name",), "leaf": ("name",),
        "node": ("name", "public_key"), "revoke": ("public_key",),
    }  # fmt: skip
    for verb, names in words.items():
        each = verbs.add_parser(verb, allow_abbrev=False)
        each.add_argument("keys", type=Path)
        for name in names:
            each.add_argument(name)
        if verb == "leaf":
            each.add_argument("nodes", nargs="+")
        if verb in ("role", "node"):
            each.add_argument("--ttl-s", type=int, help="seconds until it expires")
        each.add_argument("--prefix", default=subjects.DEFAULT_PREFIX)
    return parser


def run(words: argparse.Namespace) -> str:
    """Do one verb; what to print.

    Raises:
        Fault: an expected failure.
    """
    keys: Path = words.keys
    if words.verb == "init":
        return f"{make(keys, words.prefix).account_public_key}\n"
    authority = read(keys, words.prefix)
    if words.verb == "broker":
        return topology.trust(authority)
    if words.verb == "role":
        return f"{authority.mint_role_user(words.name, words.ttl_s)}\n"
    if words.verb == "leaf":
        return f"{leaf(authority, keys, words.name, words.nodes, words.prefix)}\n"
    if words.verb == "node":
        ttl_s = words.ttl_s or NODE_TTL_S
        return f"{authority.mint_node_user(words.name, words.public_key, ttl_s)}\n"
    authority.signer.revoke(words.public_key)
    return f"{words.public_key}\n"


def main(argv: Sequence[str]) -> int:
    """The exit code: 2 after an expected failure."""
    try:
        sys.stdout.write(run(_parser().parse_args(argv)))
    except (Fault, OSError) as trouble:
        sys.stderr.write(f"gridlease ca: {trouble}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
