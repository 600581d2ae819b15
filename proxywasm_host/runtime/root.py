"""The root context, which stands for the plugin in its guest. It has ticks, queues and callouts.

How callouts end, and their callbacks:

    =============  ==========================  =======================================================
    kind           ends with                   callbacks
    =============  ==========================  =======================================================
    HTTP           reply or failure            on_http_call_response
    gRPC unary     message, or status not 0    on_grpc_receive, or on_grpc_close
    gRPC stream    closed by both sides,       on_grpc_receive_initial_metadata, on_grpc_receive …,
                   or cancelled                on_grpc_receive_trailing_metadata, on_grpc_close
    Redis          reply or failure            on_redis_call_response
    name           reply or failure            on_foreign_function
    =============  ==========================  =======================================================

A reply to a callout that has ended, or whose plugin has ended, is dropped. Maps and buffers of a reply can be read only
in its callback.

Source: ``context.cc`` of Envoy; for Redis, that of Higress's Envoy; for names, ``ngx_proxy_wasm_foreign_call.c`` of
ngx_wasm_module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from proxywasm_host.abi.context import Context
from proxywasm_host.abi.hostcalls.callouts import NO_CLUSTER, text
from proxywasm_host.abi.marshal import Refusal
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import BufferType, MapType, Status
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.effects import (
    CalloutFailed,
    GrpcCallReply,
    GrpcClosed,
    GrpcInitialMetadata,
    GrpcMessage,
    GrpcTrailingMetadata,
    HttpCallReply,
    NameLookupReply,
    RedisCallReply,
)
from proxywasm_host.runtime.grpc_service import cluster_of
from proxywasm_host.runtime.queue_notifications import QueueNotifications
from proxywasm_host.runtime.replies import check_reply
from proxywasm_host.runtime.vm import kept_bytes
from proxywasm_host.services import max_callouts_of

if TYPE_CHECKING:
    from proxywasm_host.runtime.http_context import HttpContext
    from proxywasm_host.runtime.plugin import Plugin
    from proxywasm_host.runtime.vm import Vm

__all__ = ["RootContext"]

HTTP, GRPC_CALL, GRPC_STREAM, REDIS = range(4)
"""Kinds of callouts, the two lowest bits of their tokens."""

# Plain numbers, because members of an enumeration are slow to look up.
REPLY_HEADERS, REPLY_TRAILERS = int(MapType.HTTP_CALL_RESPONSE_HEADERS), int(MapType.HTTP_CALL_RESPONSE_TRAILERS)
REPLY_BODY = int(BufferType.HTTP_CALL_RESPONSE_BODY)
GRPC_UNAVAILABLE = 14
RESOLVE_LUA = 0
"""The number of this foreign function in its callback."""
CALLOUT = 16 * 1024
"""Bytes of a callout under way in addition to its content, for the connection and the task of a client."""
RedisClient = tuple[bytes, bytes, int, dict[str, str]]
"""User, password, timeout, options."""


def size_of(client: RedisClient) -> int:
    user, password, _, options = client
    return kept_bytes(user, password, *options, *options.values())


def lower(pairs: HeaderList) -> HeaderList:
    return [(name.lower(), value) for name, value in pairs]


def with_dispatch_status(reply: effects.Reply) -> HttpCallReply:
    """A reply as in ngx_wasm_module: ``:dispatch_status`` is the result of the callout, in that module's words."""
    if isinstance(reply, HttpCallReply) and not reply.failure:
        return replace(reply, headers=[*reply.headers[:1], (b":dispatch_status", b"ok"), *reply.headers[1:]])
    failure = reply.failure if isinstance(reply, HttpCallReply) else "broken connection"
    return HttpCallReply([(b":dispatch_status", failure.encode())], failure=failure)


class RootContext(Context):
    """A plugin's own context in one VM."""

    def __init__(self, vm: Vm, plugin: Plugin) -> None:
        super().__init__(vm.new_context_id())
        self.vm = vm
        self.plugin = plugin
        self.tick_period = 0
        self.deleted = False
        self._callouts: dict[int, tuple[effects.Callout, int]] = {}
        """Callouts under way, with their cost in bytes."""
        self._by_cluster = plugin._by_cluster
        self._half_closed: dict[int, str] = {}
        """gRPC streams that one side has closed: token → ``local`` or ``remote``."""
        self._redis: dict[str, RedisClient] = {}
        """Arguments of ``proxy_redis_init``, by cluster."""
        self._callers: dict[int, HttpContext] = {}
        """Streams that made callouts, by token, for profiles in which a reply belongs to its stream."""
        self._pending_done = False
        self.queue_notifications = QueueNotifications(self._tell)
        vm.contexts[self.id] = self

    @property
    def name(self) -> str:
        """The name of its plugin."""
        return self.plugin.name

    # -- Life ----------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Call on_context_create.

        The plugin's configuration can be read only here and in on_configure (``temp_plugin_`` in ``context.cc``).
        """
        self.buffers[BufferType.PLUGIN_CONFIGURATION] = self.plugin._configuration
        self.vm.call(self, "on_context_create", self.id, 0)
        self.buffers[BufferType.PLUGIN_CONFIGURATION] = None

    def start(self) -> bool:
        """Call on_context_create and on_vm_start. Returns false if the guest refuses.

        on_vm_start is called once for each root context, not once for each VM (``WasmBase::start`` in ``wasm.cc``).
        """
        self.create()
        return self.vm.call(self, "on_vm_start", self.id, len(self.vm.vm_configuration)) != 0

    def configure(self) -> bool:
        """Call on_configure. Returns false if the guest refuses its configuration."""
        self.buffers[BufferType.PLUGIN_CONFIGURATION] = self.plugin._configuration
        try:
            return self.vm.call(self, "on_configure", self.id, len(self.plugin._configuration)) != 0
        finally:
            self.buffers[BufferType.PLUGIN_CONFIGURATION] = None

    def close(self) -> None:
        """Call on_done, and on_delete at once or when the guest calls ``proxy_done`` (``startShutdown``)."""
        if self.deleted or self._pending_done:
            return
        if self.vm.call(self, "on_done", self.id) == 0:
            self._pending_done = True
        else:
            self._delete()

    def done(self) -> Refusal | None:
        """``proxy_done``."""
        if not self._pending_done:
            return super().done()
        self._pending_done = False
        self.vm.defer(self._delete)
        return None

    def _delete(self) -> None:
        self.vm.call(self, "on_delete", self.id)
        self.drop()

    def drop(self) -> None:
        """Remove the context: stop ticks, cancel callouts."""
        if self.deleted:
            return
        self.deleted = True
        if self.tick_period:
            self._tick_each(0)
        for token in list(self._callouts):
            self._emit(effects.CancelCallout(self.plugin, token))
            self._end(token)
        self.vm.unfinished_quota.release(sum(map(size_of, self._redis.values())))
        self._redis.clear()
        self.vm.contexts.pop(self.id, None)
        self.plugin._context_gone(self)

    # -- Properties ----------------------------------------------------------------------------------------------

    def get_property(self, path: Sequence[str]) -> PropertyValue:
        """``proxy_get_property``. Raises: LookupError."""
        return self.plugin._get_property(path)

    # -- Ticks and queues ----------------------------------------------------------------------------------------

    def set_tick_period(self, milliseconds: int) -> None:
        """``proxy_set_tick_period_milliseconds``."""
        if milliseconds != self.tick_period:
            self.vm.reserve_effect()
            self._tick_each(milliseconds)

    def _tick_each(self, milliseconds: int) -> None:
        self.tick_period = milliseconds
        self._emit(effects.SetTickPeriod(self.plugin, milliseconds))

    def register_queue(self, name: bytes) -> int:
        """``proxy_register_shared_queue``."""
        return self.vm.services.shared_queues.register(self.vm.vm_id, name, self.queue_notifications.add)

    def _tell(self, token: int) -> None:
        if not self.deleted:
            self.plugin.host._notify(effects.QueueReady(self.plugin, token))

    def _emit(self, effect: effects.Effect) -> None:
        self.plugin.host._emit(effect)

    # -- Callouts: out -------------------------------------------------------------------------------------------

    def _start(self, callout: effects.Callout, *parts: bytes | HeaderList) -> int | Refusal:
        cluster = callout.cluster
        under_way = self._by_cluster.get(cluster, 0)
        if under_way and under_way >= (most := max_callouts_of(self.vm.services.clusters, cluster)):
            reason = "{0} callouts to cluster {1!r} are under way, which is the limit"
            return Refusal(Status.INTERNAL_FAILURE, reason, most, cluster)
        size = CALLOUT + kept_bytes(*parts)
        self.vm.reserve_effect(size)
        self.vm.unfinished_quota.reserve(size)
        self._callouts[callout.token] = callout, size
        self._by_cluster[cluster] = under_way + 1
        self._emit(callout)
        return callout.token

    def http_call(
        self, cluster: str, headers: HeaderList, body: bytes, trailers: HeaderList, timeout: int
    ) -> int | Refusal:
        """``proxy_http_call``. A body gets its ``content-length`` (``httpCall`` in ``context.cc``)."""
        if body:
            length = (b"content-length", b"%d" % len(body))
            headers = [pair for pair in headers if pair[0] != b"content-length"] + [length]
        token = self.vm.new_token(HTTP)
        trailers = lower(trailers) if trailers else trailers
        callout = effects.HttpCall(self.plugin, token, cluster, headers, body, trailers, timeout)
        started = self._start(callout, headers, body, trailers)
        if started == token:
            self._note_caller(token)
        return started

    def _note_caller(self, token: int) -> None:
        """Record the stream that makes a callout, if the profile has `last_callout_resumes`: it gets the reply."""
        caller = self.vm.context
        if self.vm.profile.last_callout_resumes and hasattr(caller, "callouts"):
            self._callers[token] = cast("HttpContext", caller)
            self._callers[token].callouts += 1

    def cancel_callouts_of(self, context: HttpContext) -> None:
        """Cancel the callouts of a stream."""
        for token in [token for token, caller in self._callers.items() if caller is context]:
            del self._callers[token]
            self._end(token)
            self._emit(effects.CancelCallout(self.plugin, token))
        context.callouts = 0

    def _grpc_cluster(self, service: bytes) -> str | Refusal:
        cluster = cluster_of(service)
        return cluster if cluster in self.vm.services.clusters else Refusal(Status.PARSE_FAILURE, NO_CLUSTER, cluster)

    def grpc_call(
        self, cluster: bytes, service: bytes, method: bytes, metadata: HeaderList, message: bytes, timeout: int
    ) -> int | Refusal:
        """``proxy_grpc_call``."""
        name = self._grpc_cluster(cluster)
        if isinstance(name, Refusal):
            return name
        token = self.vm.new_token(GRPC_CALL)
        callout = effects.GrpcCall(
            self.plugin, token, name, text(service), text(method), lower(metadata), message, timeout, cluster
        )
        return self._start(callout, cluster, service, method, metadata, message)

    def grpc_stream(self, cluster: bytes, service: bytes, method: bytes, metadata: HeaderList) -> int | Refusal:
        """``proxy_grpc_stream``."""
        name = self._grpc_cluster(cluster)
        if isinstance(name, Refusal):
            return name
        token = self.vm.new_token(GRPC_STREAM)
        callout = effects.GrpcStream(self.plugin, token, name, text(service), text(method), lower(metadata), cluster)
        return self._start(callout, cluster, service, method, metadata)

    def _grpc(self, token: int, kinds: tuple[int, ...]) -> Refusal | None:
        """The refusal of a gRPC hostcall on this token, or ``None`` (``grpcSend`` in ``context.cc``)."""
        if token & 3 not in kinds:
            return Refusal(Status.BAD_ARGUMENT, "token {0} is of another kind of callout", token)
        if token not in self._callouts:
            return Refusal(
                Status.NOT_FOUND, "no gRPC call or stream has the token {0}: it has ended, or never existed", token
            )
        return None

    def grpc_send(self, token: int, message: bytes, end_stream: bool) -> Refusal | None:
        """``proxy_grpc_send``."""
        refusal = self._grpc(token, (GRPC_STREAM,))
        if refusal is None and self._half_closed.get(token) != "remote":
            self.vm.reserve_effect(kept_bytes(message))
            self._emit(effects.GrpcSend(self.plugin, token, message, end_stream))
        return refusal

    def grpc_close(self, token: int) -> Refusal | None:
        """``proxy_grpc_close``."""
        refusal = self._grpc(token, (GRPC_CALL, GRPC_STREAM))
        if refusal:
            return refusal
        self.vm.reserve_effect()
        if token & 3 == GRPC_CALL:
            self._end(token)
            self._emit(effects.CancelCallout(self.plugin, token))
        elif self._half_closed.get(token) == "remote":
            self._end(token)
        else:
            self._half_closed[token] = "local"
            self._emit(effects.GrpcClose(self.plugin, token))
        return None

    def grpc_cancel(self, token: int) -> Refusal | None:
        """``proxy_grpc_cancel``."""
        refusal = self._grpc(token, (GRPC_CALL, GRPC_STREAM))
        if refusal is None:
            self.vm.reserve_effect()
            remote = self._half_closed.get(token) == "remote"
            self._end(token)
            if not remote:
                self._emit(effects.CancelCallout(self.plugin, token))
        return refusal

    def redis_init(
        self, cluster: str, username: bytes, password: bytes, timeout: int, options: dict[str, str]
    ) -> Refusal | None:
        """``proxy_redis_init``, of Higress."""
        client, old = (username, password, timeout, options), self._redis.get(cluster)
        self.vm.unfinished_quota.reserve(size_of(client) - (size_of(old) if old else 0))
        self._redis[cluster] = client
        return None

    def redis_call(self, cluster: str, query: bytes) -> int | Refusal:
        """``proxy_redis_call``, of Higress."""
        if cluster not in self._redis:
            return Refusal(Status.BAD_ARGUMENT, "proxy_redis_init was not called for {0!r}", cluster)
        token = self.vm.new_token(REDIS)
        return self._start(effects.RedisCall(self.plugin, token, cluster, query, *self._redis[cluster]), query)

    def look_up(self, name: str) -> Refusal | None:
        """The foreign function ``resolve_lua``, of ngx_wasm_module."""
        token = self.vm.new_token(HTTP)  # the guest does not get it
        started = self._start(effects.NameLookup(self.plugin, token, name), name.encode())
        if isinstance(started, Refusal):
            return started
        self._note_caller(token)
        return None

    def _end(self, token: int) -> None:
        self._half_closed.pop(token, None)
        if token in self._callouts:
            callout, size = self._callouts.pop(token)
            left = self._by_cluster[callout.cluster] - 1
            if left:
                self._by_cluster[callout.cluster] = left
            else:  # guests choose the names, so their number has no limit
                del self._by_cluster[callout.cluster]
            self.vm.unfinished_quota.release(size)

    @property
    def calls(self) -> str:
        """The callouts under way, as text."""
        names = [f"{type(callout).__name__} to {callout.cluster!r}" for callout, _ in self._callouts.values()]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f" and has callouts under way: {', '.join(names[:3])}{more}" if names else ""

    def callout(self, token: int) -> effects.Callout | None:
        """The callout under way with this token, or ``None``."""
        return self._callouts.get(token, (None, 0))[0]

    # -- Callouts: in --------------------------------------------------------------------------------------------

    def deliver(self, callout: effects.Callout, reply: effects.Reply) -> None:
        """Pass the guest a reply, at once or after it returns.

        Raises: as `check_reply`; RuntimeError, if the callout has its reply already.
        """
        check_reply(callout, reply)
        if isinstance(callout, (effects.HttpCall, effects.GrpcCall, effects.RedisCall, effects.NameLookup)):
            if callout.answered and not self.deleted:
                raise RuntimeError(
                    f"{type(callout).__name__} {callout.token} to {callout.cluster!r} has got its reply: "
                    "a callout is answered once"
                )
            object.__setattr__(callout, "answered", True)  # frozen for all other code
        self.vm.defer(self._deliver, callout, reply)

    def _deliver(self, callout: effects.Callout, reply: effects.Reply) -> None:
        token = callout.token
        # The callout itself is compared, because another VM of this plugin may have a callout with the same token.
        under_way, _ = self._callouts.get(token, (None, 0))
        if under_way is not callout or self._half_closed.get(token) == "remote":
            return
        if isinstance(callout, effects.HttpCall):
            self._end(token)
            self._http_reply(token, reply)
        elif isinstance(callout, effects.RedisCall):
            self._end(token)
            self._redis_reply(token, reply)
        elif isinstance(callout, effects.NameLookup):
            self._end(token)
            self._found(callout, reply)
        else:
            self._grpc_reply(token, reply)

    def _http_reply(self, token: int, reply: effects.Reply) -> None:
        caller = self._callers.pop(token, None)
        if self.vm.profile.dispatch_status:
            reply = with_dispatch_status(reply)
        if isinstance(reply, HttpCallReply):
            maps, buffers, headers, trailers, body = self.maps, self.buffers, reply.headers, reply.trailers, reply.body
            maps[REPLY_HEADERS] = lower(headers)
            maps[REPLY_TRAILERS] = lower(trailers) if trailers else None
            buffers[REPLY_BODY] = body
            count = 0 if reply.failure and self.vm.profile.dispatch_status else len(headers)
            self.vm.call(caller or self, "on_http_call_response", self.id, token, count, len(body), len(trailers))
            maps[REPLY_HEADERS] = maps[REPLY_TRAILERS] = buffers[REPLY_BODY] = None
        else:
            self.status = Status.BROKEN_CONNECTION, b"reset"  # onHttpCallFailure in context.cc
            self.vm.call(caller or self, "on_http_call_response", self.id, token, 0, 0, 0)
            self.status = Status.BROKEN_CONNECTION, b""
        if caller is not None:
            caller.callout_ended()

    def _redis_reply(self, token: int, reply: effects.Reply) -> None:
        response = reply.response if isinstance(reply, RedisCallReply) else b""
        self.buffers[BufferType.REDIS_CALL_RESPONSE] = response
        failed = int(not isinstance(reply, RedisCallReply))
        self.vm.call(self, "on_redis_call_response", self.id, token, failed, len(response))
        self.buffers[BufferType.REDIS_CALL_RESPONSE] = None

    def _found(self, lookup: effects.NameLookup, reply: effects.Reply) -> None:
        """Pass the guest the length of the address (0 after a failure), the address and the name."""
        caller = self._callers.pop(lookup.token, None)
        context = caller or self
        address = reply.address if isinstance(reply, NameLookupReply) else b""
        found = bytes([len(address)]) + address + lookup.cluster.encode()
        context.buffers[BufferType.CALL_DATA] = found
        self.vm.call(context, "on_foreign_function", context.id, RESOLVE_LUA, len(found))
        context.buffers[BufferType.CALL_DATA] = None
        if caller is not None:
            caller.callout_ended()

    def _grpc_reply(self, token: int, reply: effects.Reply) -> None:
        if isinstance(reply, (GrpcInitialMetadata, GrpcTrailingMetadata)):
            initial = isinstance(reply, GrpcInitialMetadata)
            map = MapType.GRPC_RECEIVE_INITIAL_METADATA if initial else MapType.GRPC_RECEIVE_TRAILING_METADATA
            name = "on_grpc_receive_initial_metadata" if initial else "on_grpc_receive_trailing_metadata"
            self.maps[map] = lower(reply.metadata)
            self.vm.call(self, name, self.id, token, len(reply.metadata))
            self.maps[map] = None
        elif isinstance(reply, (GrpcMessage, GrpcCallReply)):
            if isinstance(reply, GrpcCallReply):
                self._end(token)
            self.buffers[BufferType.GRPC_RECEIVE_BUFFER] = reply.message
            self.vm.call(self, "on_grpc_receive", self.id, token, len(reply.message))
            self.buffers[BufferType.GRPC_RECEIVE_BUFFER] = None
        else:
            self._grpc_closed(token, reply)

    def _grpc_closed(self, token: int, reply: effects.Reply) -> None:
        """Call on_grpc_close. A stream ends after both sides have closed it, a call at once.

        Source: ``onGrpcCloseWrapper`` in ``context.cc``.
        """
        status, message = GRPC_UNAVAILABLE, "reset"
        if isinstance(reply, GrpcClosed):
            status, message = reply.status, reply.message
        elif isinstance(reply, CalloutFailed):
            message = reply.reason
        broken = isinstance(reply, CalloutFailed)
        if broken or token & 3 == GRPC_CALL or self._half_closed.get(token) == "local":
            self._end(token)
        else:
            self._half_closed[token] = "remote"
        self.status = status, message.encode("utf-8", "replace")
        self.vm.call(self, "on_grpc_close", self.id, token, status)
        self.status = status, b""
