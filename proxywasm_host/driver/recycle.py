"""New VMs before the old ones are full: the memory of WebAssembly only grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["Recycle"]

EACH = 0.25
"""Seconds between looks at what VMs have used."""
LATER = 60.0
"""Seconds until the next one, if new VMs could not be loaded."""
MAX_RETIRED = 2
"""Chains that may wait for their last stream; no VM is recycled meanwhile, so that memory is bounded."""


@dataclass(frozen=True)
class Recycle:
    """When all filters of a chain get new VMs. Streams under way end on the old ones.

    Args:
        memory: bytes of memory of a VM.
        requests: requests that a VM has begun; each counts once for each filter that has the VM.
        age: seconds since a VM started.

    Raises: ValueError, if none is given.
    """

    memory: int | None = None
    requests: int | None = None
    age: float | None = None

    def __post_init__(self) -> None:
        if self.memory is None and self.requests is None and self.age is None:
            raise ValueError("say when: memory, requests or age")

    def why(self, plugins: Sequence[Plugin]) -> str:
        """Why their VMs are to be replaced; empty if they are not. Call it in the host's thread."""
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
        """The same, of a chain whose predecessors are in one host with it: nothing while too many of these wait."""
        retired = sum(plugin.closed for plugin in host.plugins)
        return "" if retired >= MAX_RETIRED * len(plugins) else self.why(plugins)
