"""The agent as three processes: a parent, the executor, the core; or why it is only one."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gridlease_agent.executor import account, cover, parent, privileged
from gridlease_agent.executor.server import Server, listen
from gridlease_agent.runtimes.choose import choose_runtime
from gridlease_agent.settings import Flags, Settings

_LOG = logging.getLogger(__name__)
STATE = "GRIDLEASE_EXECUTOR"
READY = "GRIDLEASE_READY_FD"
_CORE_ENV = {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "65536"}


def serve(state: Path, environments: Path, settings: Settings, who: tuple[int, int]) -> None:
    """The executor's life.

    Raises:
        Precondition: NO_SANDBOX_RUNTIME.
    """
    listener = listen(state, who[1])
    own = privileged.privileged(state, settings, who)
    Server(privileged.rooms(own, state, environments), who[0]).serve(listener)


def run(flags: Flags, settings: Settings, argv: Sequence[str]) -> int | None:
    """Run split until told to stop; None, and why in the log, where that cannot be.

    Raises:
        Precondition: NO_SANDBOX_RUNTIME, NO_SUCH_USER.
    """
    who = account.account(settings.agent_user)
    state = flags.state
    flags.environments.mkdir(parents=True, exist_ok=True, mode=0o755)
    account.share_out(state, *who)
    stand_ins = [x for x in (settings.device_root, settings.device_families) if x and x.is_dir()]
    needed = [*cover.programs(), *_packages(), *stand_ins, state, flags.environments]
    trouble = parent.trial(needed, who, state)
    if trouble:
        _LOG.warning("the core stays root: %s", trouble)
        return None
    choose_runtime()
    env = {**os.environ, **_CORE_ENV, STATE: str(state), "HOME": str(state)}
    env.pop("GRIDLEASE_READY_FILE", None)

    def become_core(ready: int) -> None:
        parent.exec_core(needed, who, argv, {**env, READY: str(ready)})

    gc.collect()
    gc.freeze()  # or the collector would touch, and so copy, every page that the two share
    both = parent.Parent(
        state, lambda: serve(state, flags.environments, settings, who), become_core
    )
    return both.run(settings.ready_file)


def _packages() -> list[Path]:
    """Folders of packages that no entry of the path names: those of an editable installation."""
    found = []
    for name in sys.modules:
        if "." not in name and name.startswith(("gridlease", "google", "grpc", "nats")):
            spec = importlib.util.find_spec(name)
            places = (spec and spec.submodule_search_locations) or ()
            found += [Path(place).parent for place in places]
    return found
