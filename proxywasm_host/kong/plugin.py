"""Plugins of Kong in any language, and the effects that they may yield. No I/O happens here.

A phase of a plugin is a generator. It reads and changes a `Context`, yields effects, and is resumed with the result of
each; the failure of an effect is thrown in as `EffectFailed`. It ends by returning; to answer the client, it sets
`Context.exit` first. Only ``init_worker``, ``rewrite``, ``access``, ``response``, ``log``, ``preread`` and timers may
yield. As in Kong, ``header_filter`` and ``body_filter`` must not, so nothing waits between them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Union

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.kong.context import Context

__all__ = [
    "PHASES",
    "Close",
    "Connect",
    "Effect",
    "EffectFailed",
    "HttpReply",
    "HttpRequest",
    "Plugin",
    "PluginFailed",
    "ReadRequestBody",
    "Receive",
    "Run",
    "Send",
    "ServerCall",
    "Signal",
    "Sleep",
    "StartTimer",
    "Wait",
]

PHASES = (
    *("init_worker", "configure", "certificate", "rewrite", "access"),
    *("response", "header_filter", "body_filter", "log", "preread"),
)
"""All phases, in their order."""


class PluginFailed(ProxyWasmError):
    """A plugin's code failed: the request is answered 500, and this is logged, with the plugin's traceback."""

    code = "plugin_failed"


class EffectFailed(ProxyWasmError):
    """An effect failed; the message is nginx's word for the reason (``timeout``, …)."""

    code = "effect_failed"


# -- Effects that a phase may yield -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sleep:
    """Resume the plugin with ``None`` after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ReadRequestBody:
    """Resume the plugin with the body when the whole request has arrived; `Request.body` has it from then on."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """The response to an `HttpRequest`."""

    status: int
    headers: HeaderList
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """Make an HTTP request; the plugin is resumed with an `HttpReply`."""

    method: str
    url: str
    headers: HeaderList = field(default_factory=list)
    body: bytes = b""
    timeout: float = 60.0
    """Seconds for the whole call."""
    verify: bool = True
    """Whether the certificate of an ``https`` URL is checked."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection; the plugin is resumed with a value for `Send`, `Receive` and `Close`."""

    host: str
    """A name or an address; the path of a Unix socket, if `port` is 0."""
    port: int
    timeout: float = 60.0
    """Seconds."""
    tls: bool = False
    server_name: str | None = None
    """Name for TLS, instead of `host`."""
    verify: bool = True
    datagrams: bool = False
    """Use UDP: each `Send` sends a datagram, and each `Receive` returns one."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send all of `data`; the plugin is resumed with ``None``."""

    connection: object
    data: bytes
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Receive:
    """Resume the plugin with up to `size` bytes as soon as some have arrived; with ``b""`` at the end of the stream."""

    connection: object
    size: int = 65536
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Close:
    """Close a connection; the plugin is resumed with ``None``. The end of a phase or timer closes its connections."""

    connection: object


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Run another generator `seconds` from now; the plugin is resumed at once, with ``None``.

    It may outlive the request. Its errors are logged.
    """

    seconds: float
    run: Run


class Signal:
    """An event that several runs may wait for. Each wait ends at the next `give`."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[Any], None]] = []

    def add(self, resume: Callable[[Any], None]) -> None:
        """Call a function at the next `give`."""
        self._waiting.append(resume)

    def give(self, value: Any) -> None:
        """Resume all waiting runs with this value."""
        waiting, self._waiting = self._waiting, []
        for resume in waiting:
            resume(value)


@dataclass(frozen=True, slots=True)
class Wait:
    """Resume the plugin with the value of a signal, when another run gives it."""

    signal: Signal


@dataclass(frozen=True, slots=True)
class ServerCall:
    """Send a message to a plugin server; the plugin is resumed with the answer. Used by plugins of plugin servers."""

    server: str
    """The server's name in the configuration."""
    message: object


Effect = Union[Sleep, ReadRequestBody, HttpRequest, Connect, Send, Receive, Close, StartTimer, Wait, ServerCall]
Run = Generator[Effect, Any, None]


class Plugin(Protocol):
    """A loaded plugin. It is used in one thread."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        ...

    @property
    def priority(self) -> int:
        """Plugins of higher priority run first in each phase; those of equal priority in descending order of names."""
        ...

    @property
    def version(self) -> str:
        """Its version."""
        ...

    @property
    def phases(self) -> frozenset[str]:
        """The phases, of `PHASES`, for which it has code."""
        ...

    def check(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration with its defaults filled in.

        Raises: ConfigError, with Kong's message and the field's name: ``config.minute: expected an integer``.
        """
        ...

    def run(self, phase: str, context: Context | None, config: Any) -> Run:
        """Run one phase. Raises (from the generator): PluginFailed.

        In ``init_worker`` and ``configure`` there is no context. `config` is what `check` returned for this place in
        the configuration. In ``init_worker`` it is ``None``; in ``configure`` it is a sequence of all configurations of
        the plugin, or ``None`` if there are none.
        """
        ...
