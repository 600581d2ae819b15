"""What a plugin of Kong's is, whatever it is written in, and what it may ask for while it runs. No I/O happens here.

A plugin's phase is a generator. It reads and changes a `Context`, yields effects, and is resumed with the answer to
each; an effect that fails is thrown in as `EffectFailed`. It ends by returning; to answer the client it sets
`Context.exit` before. Only ``init_worker``, ``rewrite``, ``access``, ``response``, ``log``, ``preread`` and timers may
yield; ``header_filter`` and ``body_filter`` must not, as in Kong, and nothing waits for what is between them.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
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
    "Sleep",
    "StartTimer",
]

PHASES = (
    *("init_worker", "configure", "certificate", "rewrite", "access"),
    *("response", "header_filter", "body_filter", "log", "preread"),
)
"""All phases, in the order in which they come."""


class PluginFailed(ProxyWasmError):
    """A plugin's code failed: the request is answered 500, and the log has this, with the code's own traceback."""

    code = "plugin_failed"


class EffectFailed(ProxyWasmError):
    """What a plugin asked for could not be done; the text is nginx's word for it (``timeout``, …)."""

    code = "effect_failed"


# -- Effects: what a phase may yield -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sleep:
    """Be resumed so many seconds from now, with ``None``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ReadRequestBody:
    """Be resumed when the request has come in as a whole, with its body, which is in `Request.body` from then on."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """The answer to an `HttpRequest`."""

    status: int
    headers: HeaderList
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """Make an HTTP request; be resumed with its `HttpReply`."""

    method: str
    url: str
    headers: HeaderList = field(default_factory=list)
    body: bytes = b""
    timeout: float = 60.0
    """Seconds for all of it."""
    verify: bool = True
    """Whether the certificate of an ``https`` URL is checked."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection; be resumed with it, a value to be named in `Send`, `Receive` and `Close`."""

    host: str
    """A name or an address; the path of a Unix socket, if `port` is 0."""
    port: int
    timeout: float = 60.0
    """Seconds."""
    tls: bool = False
    server_name: str | None = None
    """For TLS, instead of `host`."""
    verify: bool = True
    datagrams: bool = False
    """Over UDP: each `Send` is a datagram, and so is what each `Receive` gives."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send all of `data`; be resumed with ``None``."""

    connection: object
    data: bytes
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Receive:
    """Be resumed with at most `size` bytes as soon as there are some; with none at the end of the stream."""

    connection: object
    size: int = 65536
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Close:
    """Close a connection; be resumed with ``None``. One that is left open ends with its phase or timer."""

    connection: object


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Run another generator `seconds` from now, beside this one; be resumed at once, with ``None``.

    It may outlive the request. What it raises is logged.
    """

    seconds: float
    run: Run


@dataclass(frozen=True, slots=True)
class ServerCall:
    """Send a message on a connection to a plugin server and be resumed with its answer. Plugin servers' own."""

    server: str
    """By its name in the configuration."""
    message: object


Effect = Union[Sleep, ReadRequestBody, HttpRequest, Connect, Send, Receive, Close, StartTimer, ServerCall]
Run = Generator[Effect, Any, None]


class Plugin(Protocol):
    """A plugin that is loaded. It is used in one thread."""

    @property
    def name(self) -> str:
        """By which the configuration names it."""
        ...

    @property
    def priority(self) -> int:
        """In each phase, plugins of higher priority run first; of equal priority, by name in descending order."""
        ...

    @property
    def version(self) -> str:
        """Its own."""
        ...

    @property
    def phases(self) -> frozenset[str]:
        """Those of `PHASES` that it has something to do in."""
        ...

    def check(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration with its defaults filled in.

        Raises: ConfigError, with Kong's message and the field's name: ``config.minute: expected an integer``.
        """
        ...

    def run(self, phase: str, context: Context | None, config: Any) -> Run:
        """Run one phase. Raises (from the generator): PluginFailed.

        In ``init_worker`` and ``configure`` there is no context. `config` is what `check` returned for this place in
        the configuration; in ``init_worker`` it is ``None``; in ``configure`` a sequence of all of the plugin's, or
        ``None`` if there is none.
        """
        ...
