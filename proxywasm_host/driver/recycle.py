"""New VMs before the old ones are full: the memory of WebAssembly only grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["Recycle"]

EACH = 0.25
"""Seconds between checks of VMs."""
LATER = 60.0
"""Seconds until the next attempt, if new VMs could not be loaded."""
MAX_RETIRED = 2
"""Most chains that wait for their last stream; beyond that no VM is recycled, so that memory is bounded."""


@dataclass(frozen=True)
class Recycle:
    """When all filters of a chain get new VMs. Streams under way end on the old ones.

    Args:
        memory: when a VM has this many bytes of memory.
        requests: when a VM has begun this many requests; a request counts once for each filter in the VM.
        age: when a VM has run for this many seconds.

    Raises: ValueError, if none is given.
    """

    memory: int | None = None
    requests: int | None = None
    age: float | None = None

    def __post_init__(self) -> None:
        if self.memory is None and self.requests is None and self.age is None:
            raise ValueError("say when: memory, requests or age")

    def why(self, plugins: Sequence[Plugin]) -> str:
        """Why their VMs must be replaced; empty if they need not be. Call it in the host's thread."""
        for plugin in plugins:
            usage = plugin.usage()
            for said, used, most in (
                ("has {:g} bytes of memory", usage.memory, self.memory),
                ("has begun {:g} requests", usage.contexts - 1, self.requests),
                ("is {:.0f} seconds old", usage.age, self.age),
            ):
                if most is not None and used >= most:
                    return f"the VM of {plugin.name} {said.format(used)}"
        return ""

    def why_now(self, host: Host, plugins: Sequence[Plugin]) -> str:
        """The same for a chain whose predecessors are in the same host: empty while too many of those wait."""
        retired = sum(plugin.closed for plugin in host.plugins)
        return "" if retired >= MAX_RETIRED * len(plugins) else self.why(plugins)
