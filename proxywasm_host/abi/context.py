"""The state of a context, and the part of its VM, that hostcalls work on.

Rules of this module:

* State that hostcalls only read and write has plain built-in types: a header map is a list of ``(bytes, bytes)`` with
  names in lower case, a buffer is ``bytes`` or a `HeldBody`. So the C extension can work on the same objects; its
  ``ContextState`` replaces the one here.
* A map or a buffer that cannot be read now is ``None``; the runtime sets it in the phases that have it.
* An action that a hostcall starts (a local response, a callout, …) is a method. The runtime's contexts override those
  that they support; the methods here are those of a context that does not support them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from proxywasm_host.abi.held_body import HeldBody
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.native import NATIVE, check_constants
from proxywasm_host.abi.pairs import MAX_ENTRIES, MAX_SIZE, HeaderList
from proxywasm_host.abi.profile import Profile
from proxywasm_host.abi.types import AbiVersion, MapType, Status, StreamType
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.forks import cached_property
from proxywasm_host.services import Services
from proxywasm_host.services.expressions import Expressions
from proxywasm_host.services.quota import MIB, Quota

__all__ = ["READ_ONLY", "Context", "VmState"]

BUFFERS = 10
DECLARED = 256
"""Bytes that a declared property counts for, in addition to its name."""
READ_ONLY = "property {0} was declared as one that can be set only once"
check_constants(BUFFERS=BUFFERS, MAPS=len(MapType))


class ContextState:
    """The state of a context that hostcalls read and write."""

    read_only = False
    """True during on_log, in which nothing can be changed (``getMap`` in Envoy's ``context.cc``)."""

    def __init__(self, id: int, root: Any = None) -> None:
        self.id = id
        """The number by which the guest knows it."""
        self.root: Any = root or self
        """The root context of its plugin; itself, if it is one."""
        self.maps: list[HeaderList | None] = [None] * (4 if root else 8)
        """Header maps by `MapType`; those of callouts (from 4 on) are the root context's."""
        self.buffers: list[bytes | HeldBody | None] = [None] * BUFFERS
        """Buffers by `BufferType`; 4, 5, 7 and 9 are the root context's, 6 the VM's."""


PythonContextState = ContextState
if not TYPE_CHECKING and NATIVE is not None:
    ContextState = NATIVE.ContextState


class Context(ContextState):
    """One context: the plugin's own (root) or a stream's."""

    root: Context
    status: tuple[int, bytes] = (0, b"")
    """Result of ``proxy_get_status``: code and message of the last callout."""
    set_once: frozenset[str] = frozenset()
    """Properties that this context has declared as read-only: each of its streams may set each of them once."""

    @property
    def name(self) -> str:
        """Name of the plugin, for log lines."""
        return ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}{f' of {self.name!r}' if self.name else ''}>"

    # -- The stream ----------------------------------------------------------------------------------------------

    def add_trailers(self, map: int) -> HeaderList | None:
        """Create trailers for a message without any, in the body callback that ends the stream; ``None`` elsewhere."""
        return None

    def map_limits(self, map: int) -> tuple[int, int]:
        """Most headers, and most bytes of them, to which this guest may extend a map of the stream."""
        return MAX_ENTRIES, MAX_SIZE

    def past_headers(self, map: int) -> HeaderList | None:
        """Headers that were sent on; ``None`` without any, and for a map that is not of this context's stream."""
        return None

    def writable_size(self, buffer: int) -> int:
        """Most bytes to which the guest may extend a buffer; 0 if it cannot be changed."""
        return 0

    def vm_failed(self) -> None:
        """React to a failure of the guest, in this context or in another one of its VM."""

    def send_local_response(
        self, status: int, details: bytes, body: bytes, headers: HeaderList, grpc_status: int | None
    ) -> None:
        """Answer the client instead of continuing, after the guest returns. `details` is ``response.code_details``."""

    def continue_stream(self, stream: int) -> Refusal | None:
        """Resume the stream after the guest returns. Does nothing for a stream type that the context does not have.

        UPSTREAM is UNIMPLEMENTED (``continueStream`` in Envoy's ``context.cc``).
        """
        if stream == StreamType.UPSTREAM:
            return Refusal(Status.UNIMPLEMENTED, "an upstream connection cannot be continued")
        return None

    def close_stream(self, stream: int) -> Refusal | None:
        """Close the stream after the guest returns. Does nothing for a stream type that the context does not have."""
        return None

    def clear_route_cache(self) -> None:
        """Make the proxy choose the route again."""

    def inject_response_body(self, data: bytes, end_stream: bool) -> Refusal | None:
        """Pass body data to the next filter of the response."""
        return Refusal(Status.BAD_ARGUMENT, "context {0} is not an HTTP stream", self.id)

    def override_upstream_host(self, address: bytes) -> Refusal | None:
        """Pin the upstream host of this request."""
        return Refusal(Status.BAD_ARGUMENT, "context {0} is not an HTTP stream", self.id)

    # -- Properties ----------------------------------------------------------------------------------------------

    def get_property(self, path: Sequence[str]) -> PropertyValue:
        """Value of a property. Raises: LookupError, if nothing has that path."""
        raise LookupError

    def set_property(self, name: str, value: bytes) -> Refusal | None:
        """Store a property for later filters and for the access log.

        `name` is the guest's path, with its NULs. As in Envoy, a property whose name has NULs cannot be read.
        """
        return Refusal(Status.NOT_FOUND, "context {0} is not a stream: it has no properties", self.id)

    @cached_property
    def expressions(self) -> Expressions:
        """The plugin's CEL expressions, which its root context keeps."""
        return Expressions()

    @cached_property
    def _declared(self) -> tuple[set[str], Quota]:
        """Names of the properties that this context has declared, and their quota."""
        return set(), Quota("the properties that this context declared", MIB)

    def declare_property(self, name: str, *, read_only: bool) -> Refusal | None:
        """Declare a property before it is set. A declaration of a root context holds in all of its streams."""
        declared, quota = self._declared
        if name in declared:
            return Refusal(Status.BAD_ARGUMENT, "property {0} has been declared before", name)
        quota.reserve(DECLARED + len(name))
        declared.add(name)
        if read_only:
            self.set_once |= {name}
        return None

    def set_filter_state(self, name: str, value: bytes) -> Refusal | None:
        """Set an object of Envoy's filter state, for the proxy and the later filters."""
        return Refusal(Status.NOT_FOUND, "context {0} is not a stream: it has no filter state", self.id)

    # -- The plugin ----------------------------------------------------------------------------------------------

    def done(self) -> Refusal | None:
        """End the wait that on_done began (``proxy_done``)."""
        return Refusal(Status.NOT_FOUND, "on_done of context {0} is not pending", self.id)

    def set_tick_period(self, milliseconds: int) -> None:
        """Call on_tick every `milliseconds`; 0 stops it."""

    def _no_plugin(self) -> Refusal:
        return Refusal(Status.BAD_ARGUMENT, "context {0} is not a plugin's root context", self.id)

    def register_queue(self, name: bytes) -> int | Refusal:
        """Register a shared queue, and notify this plugin of its messages. Returns its token."""
        return self._no_plugin()

    def http_call(
        self, cluster: str, headers: HeaderList, body: bytes, trailers: HeaderList, timeout: int
    ) -> int | Refusal:
        """Start an HTTP callout; `timeout` is in milliseconds. Returns its token."""
        return self._no_plugin()

    def grpc_call(
        self, cluster: bytes, service: bytes, method: bytes, metadata: HeaderList, message: bytes, timeout: int
    ) -> int | Refusal:
        """Start a unary gRPC callout. Returns its token.

        `cluster` is its name or a ``GrpcService`` message; `timeout` is in milliseconds.
        """
        return self._no_plugin()

    def grpc_stream(self, cluster: bytes, service: bytes, method: bytes, metadata: HeaderList) -> int | Refusal:
        """Open a gRPC stream; `cluster` as in `grpc_call`. Returns its token."""
        return self._no_plugin()

    def grpc_send(self, token: int, message: bytes, end_stream: bool) -> Refusal | None:
        """Send a message on a gRPC stream."""
        return self._no_plugin()

    def grpc_close(self, token: int) -> Refusal | None:
        """Close the guest's side: no more messages will be sent."""
        return self._no_plugin()

    def grpc_cancel(self, token: int) -> Refusal | None:
        """Cancel a gRPC call or stream; no callback follows."""
        return self._no_plugin()

    def redis_init(
        self, cluster: str, username: bytes, password: bytes, timeout: int, options: dict[str, str]
    ) -> Refusal | None:
        """Configure the Redis client of a cluster; `timeout` of its calls is in milliseconds."""
        return self._no_plugin()

    def redis_call(self, cluster: str, query: bytes) -> int | Refusal:
        """Send a Redis command; `query` is the command in RESP. Returns its token."""
        return self._no_plugin()

    def look_up(self, name: str) -> Refusal | None:
        """Start to resolve the name of a host."""
        return self._no_plugin()


class VmState(Protocol):
    """The part of a VM that hostcalls use."""

    @property
    def version(self) -> AbiVersion:
        """The ABI that the module was built for."""
        ...

    @property
    def profile(self) -> Profile:
        """The profile of this VM."""
        ...

    @property
    def services(self) -> Services:
        """The services that hostcalls use."""
        ...

    @property
    def vm_id(self) -> str:
        """The vm_id, which selects shared data, queues and metrics."""
        ...

    @property
    def vm_configuration(self) -> bytes:
        """The configuration for ``proxy_on_vm_start``."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment for WASI's ``environ_get``."""
        ...

    context: Context
    """The effective context: the one of the current callback, or the one that the guest chose."""

    @property
    def contexts(self) -> Mapping[int, Context]:
        """The existing contexts, by id."""
        ...

    @property
    def metrics(self) -> Sequence[tuple[list[str], dict[str, int]]]:
        """The metrics that the guest has defined, by kind: names in the order of their ids, and the id of each."""
        ...

    def log(self, level: int, message: bytes) -> None:
        """Log a line of the guest."""
        ...

    def write(self, level: int, data: bytes) -> None:
        """Add to the guest's standard output or error, which is logged in whole lines."""
        ...
