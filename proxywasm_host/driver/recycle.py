"""Replaces VMs before they are full, because WebAssembly memory only grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["Recycle"]

EACH = 0.25
"""Seconds between checks of VMs."""
LATER = 60.0
"""Seconds until the next attempt after new VMs could not be loaded."""
MAX_RETIRED = 2
"""Maximum number of old chains with unfinished streams. Beyond that no VM is replaced, so that memory is bounded."""


@dataclass(frozen=True)
class Recycle:
    """When to replace the VMs of all filters of a chain. Current streams end on the old ones.

    Args:
        memory: bytes of a VM's memory.
        requests: number of requests that a VM has begun; a request counts once for each filter in the VM.
        age: seconds for which a VM has run.

    Raises: ValueError, if none is given.
    """

    memory: int | None = None
    requests: int | None = None
    age: float | None = None

    def __post_init__(self) -> None:
        if self.memory is None and self.requests is None and self.age is None:
            raise ValueError("give memory, requests or age")

    def why(self, plugins: Sequence[Plugin]) -> str:
        """The reason to replace the VMs of these plugins, or an empty text. Call it in the host's thread."""
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
        """As `why`, but empty while too many old chains in the host have unfinished streams."""
        retired = sum(plugin.closed for plugin in host.plugins)
        return "" if retired >= MAX_RETIRED * len(plugins) else self.why(plugins)
