"""The state of the filters of a chain, for the page of the admin port and for metrics."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from proxywasm_host.recording.secrets import Secrets
from proxywasm_host.runtime.failure_policy import FailurePolicy
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["resident_bytes", "state_of"]


def state_of(
    host: Host, plugins: Sequence[Plugin], filters: Sequence[FilterConfig], generation: int
) -> list[dict[str, Any]]:
    """Each filter and its VM, as JSON values. `filters` are those from which the plugins were loaded.

    `generation` is the number of the configuration; VMs that replace others get higher numbers.
    """
    usages = [plugin.usage() for plugin in plugins]
    return [
        {
            "name": plugin.name,
            "file": str(filter.code),
            "digest": plugin.config.sha256,
            "imports": {each.name: each.status for each in plugin.imports},
            "engine": filter.engine or host.engine.name,
            "abi": str(plugin._vm.version),
            "state": "bypassed" if plugin._bypassed else "failed" if plugin.failure else "running",
            "failure": Secrets().failure(plugin.failure).report() if plugin.failure else "",
            "policy": FailurePolicy(plugin.config.failure_policy).value,
            "restarts": plugin.reloads,
            "memory": usage.memory,
            "usage": {**asdict(usage), "generation": generation - 1 + usage.generation},
            "contexts": len(plugin._vm.contexts),
            "tick": plugin._root.tick_period,
            "vm": id(plugin._vm),
        }
        for plugin, usage, filter in zip(plugins, usages, filters, strict=True)
    ]


def resident_bytes() -> int:
    """Bytes of memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
