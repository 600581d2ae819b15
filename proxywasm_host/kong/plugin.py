"""Plugins of Kong in any language, and the effects that they may ask for. No I/O happens here.

A plugin's phase is a generator. It reads and changes a `Context`, yields effects, and is resumed with the answer to
each; an effect that fails is thrown in as `EffectFailed`. It ends by returning; to answer the client it sets
`Context.exit` before. Only ``init_worker``, ``rewrite``, ``access``, ``response``, ``log``, ``preread`` and timers may
yield; as in Kong, ``header_filter`` and ``body_filter`` must not, so nothing ever waits between them.
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
    """An effect failed; the text is nginx's word for the reason (``timeout``, …)."""

    code = "effect_failed"


# -- Effects that a phase may yield -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sleep:
    """Resume the plugin after so many seconds, with ``None``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ReadRequestBody:
    """Resume the plugin with the body when the whole request has come in; `Request.body` has it from then on."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """The answer to an `HttpRequest`."""

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
    """Use UDP: each `Send` sends a datagram, and each `Receive` gives one."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send all of `data`; the plugin is resumed with ``None``."""

    connection: object
    data: bytes
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Receive:
    """Resume the plugin with at most `size` bytes as soon as some have come; with ``b""`` at the end of the stream."""

    connection: object
    size: int = 65536
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Close:
    """Close a connection; the plugin is resumed with ``None``. An open connection ends with its phase or timer."""

    connection: object


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Run another generator `seconds` from now, beside this one; the plugin is resumed at once, with ``None``.

    It may outlive the request. An error in it is logged.
    """

    seconds: float
    run: Run


class Signal:
    """Something that happens once, and that several runs wait for."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[Any], None]] = []

    def add(self, resume: Callable[[Any], None]) -> None:
        """Have a function called when it happens."""
        self._waiting.append(resume)

    def give(self, value: Any) -> None:
        """It has happened: resume all who wait, with this value."""
        waiting, self._waiting = self._waiting, []
        for resume in waiting:
            resume(value)


@dataclass(frozen=True, slots=True)
class Wait:
    """Be resumed when another run gives a signal, with the value that it gives."""

    signal: Signal


@dataclass(frozen=True, slots=True)
class ServerCall:
    """Send a message to a plugin server; the plugin is resumed with the answer. Used by plugins of such servers."""

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
        """Its own."""
        ...

    @property
    def phases(self) -> frozenset[str]:
        """Those of `PHASES` for which it has code."""
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
