"""The callbacks of the ABI: each finds its filter, calls its handler, and returns how the stream continues."""

from __future__ import annotations

import json
import random
from typing import Any

from proxywasm._filters import HttpFilter, TcpFilter
from proxywasm._grpc import GrpcReply, grpc_calls, grpc_streams
from proxywasm._host import host
from proxywasm._log import log, traceback
from proxywasm._messages import EVERYTHING, RequestHead, Response, ResponseHead
from proxywasm._tasks import Reply, Task, clock, http_calls, now, repeated, set_period, start, tasks, tick

__all__ = ["register"]

GO_ON, STOP, STOP_ALL_AND_WATERMARK = 0, 1, 4
REQUEST, RESPONSE, DOWNSTREAM, UPSTREAM = 0, 1, 2, 3

classes: dict[str, Any] = {}
contexts: dict[int, Any] = {}
# The action that holds headers, and the body with them.
hold = STOP


def register(filter: Any, root_id: str | None = None) -> Any:
    """Register a class of filters for all plugins, or for those with one root ID. Usable as a decorator."""
    classes["*" if root_id is None else root_id] = filter
    handle(filter)
    return filter


# Callbacks in the order of their numbers in the runtime. Those that no filter needs stay None, and cost nothing.
NAMES = ["vm_start", "configure", "context_create", "tick", "queue_ready", "new_connection", "downstream_data", "upstream_data", "downstream_close", "upstream_close", "request_headers", "request_body", "request_trailers", "response_headers", "response_body", "response_trailers", "http_call_response", "grpc_initial_metadata", "grpc_message", "grpc_trailing_metadata", "grpc_close", "foreign_function", "done", "log", "delete", "redis_call_response"]
NEEDED = {
    "on_connection": "new_connection",
    "on_downstream_data": "downstream_data",
    "on_upstream_data": "upstream_data",
    "on_downstream_close": "downstream_close",
    "on_upstream_close": "upstream_close",
    "on_request_headers": "request_headers",
    "on_request_body": "request_body",
    "on_request_trailers": "request_trailers",
    "on_response_headers": "response_headers",
    "on_response_body": "response_body",
    "on_response_trailers": "response_trailers",
    "on_queue": "queue_ready",
    "on_foreign_function": "foreign_function",
    "on_log": "log",
    "on_done": "done",
}
handlers: list[Any] = [None] * len(NAMES)


def need(*names: str) -> None:
    changed = False
    for name in names:
        at = NAMES.index(name)
        if handlers[at] is None:
            handlers[at] = CALLBACKS[name]
            changed = True
    if changed:
        host.handlers(handlers)


def handle(filter: Any) -> None:
    base = TcpFilter if issubclass(filter, TcpFilter) else HttpFilter
    names = ["vm_start", "configure", "context_create", "tick", "http_call_response", "delete"]
    names += ["grpc_initial_metadata", "grpc_message", "grpc_trailing_metadata", "grpc_close"]
    filter._overridden = [name for name in NEEDED if getattr(filter, name, None) is not getattr(base, name, None)]
    filter._plain = base is HttpFilter and filter.__init__ is HttpFilter.__init__
    for name in filter._overridden:
        names.append(NEEDED[name])
        if name == "on_request_body":
            names.append("request_headers")
        elif name == "on_response_body":
            names.append("response_headers")
    need(*names)


# A coroutine may wait for events that only these callbacks report.
def need_everything() -> None:
    need("request_body", "request_trailers", "response_body", "response_trailers")


# The VM and the plugin ------------------------------------------------------------------------------------------


def vm_start(context: int, size: int) -> int:
    random.seed(int.from_bytes(host.random_bytes(4), "little"))
    return 1


def context_create(context: int, parent: int) -> None:
    if parent:
        plugin = contexts.get(parent)
        if plugin is None:
            return
        if plugin._plain:
            filter = host.like(plugin)
            filter.request = RequestHead()
            filter.response = ResponseHead()
        else:
            filter = plugin.__class__()
            for name, value in plugin._given:
                setattr(filter, name, value)
        filter.plugin = plugin
    else:
        now.context = context
        root_id = (host.get_property("plugin_root_id") or b"").decode()
        found = classes.get(root_id) or classes.get("*")
        if found is None:
            log.critical("no filter is registered for root ID %r", root_id)
            return
        filter = found()
    filter.id = context
    contexts[context] = filter


def configure(context: int, size: int) -> int:
    now.context = context
    clock.root = context
    filter = contexts.get(context)
    if filter is None:
        return 0
    text = host.get_buffer(7, 0, size).decode() if size else ""
    try:
        filter.config = json.loads(text) if text else None
    except ValueError:
        filter.config = text
    before = dict(filter.__dict__)
    before.pop("config", None)
    before.pop("_given", None)
    try:
        answer = at_once(filter.on_configure(filter.config), "on_configure", "give what waits to create_task")
        given = [(name, value) for name, value in filter.__dict__.items() if name != "_given"]
        filter._given = [(name, value) for name, value in given if name not in before or before[name] is not value]
    except Exception as error:
        log.error(traceback(error))
        return 0
    if repeated:
        set_period()
    return 0 if answer is False else 1


def at_once(result: Any, name: str, instead: str) -> Any:
    """The result of a handler that cannot wait. Raises: TypeError, if the handler is async."""
    if hasattr(result, "send"):
        result.close()
        raise TypeError("%s is async, but cannot wait: %s" % (name, instead))
    return result


def queue_ready(context: int, queue: int) -> None:
    now.context = context
    start(lambda: contexts[context].on_queue(queue), context)


def foreign_function(context: int, function: int, size: int) -> None:
    now.context = context
    start(lambda: contexts[context].on_foreign_function(function, host.get_buffer(8, 0, size)), context)


def done(context: int) -> int:
    now.context = context
    try:
        return 0 if contexts[context].on_done() is False else 1
    except Exception as error:
        log.error(traceback(error))
        return 1


# HTTP streams ---------------------------------------------------------------------------------------------------


def failed(filter: Any, error: BaseException) -> Any:
    """Log the error of a handler, and return the result to use instead of the handler's."""
    log.error(traceback(error))
    return None if filter.on_error is None else Response(filter.on_error, details="python_exception")


def answer(response: Response) -> int:
    try:
        response._send()
    except Exception as error:
        log.error(traceback(error))
        return GO_ON
    return STOP


def headers(filter: Any, message: Any, result: Any) -> int:
    """The action after a handler of headers or trailers has returned `result`."""
    try:
        if hasattr(result, "send"):
            need_everything()
            task = Task(result, filter.id)
            if not task.done:
                message._task = task
                message._held = message._waiting is None
                tasks.setdefault(filter.id, []).append(task)
                task.then(lambda: resume(filter, message))
                return hold if message._held else GO_ON
            if task.error is not None:
                raise task.error
            result = task.result
    except Exception as error:
        result = failed(filter, error)
    return answer(result) if isinstance(result, Response) else GO_ON


def plugin_of(context: int) -> int:
    """The root context that `context` belongs to."""
    filter = contexts.get(context)
    return context if filter is None or filter.plugin is None else int(filter.plugin.id)


def resume(filter: Any, message: Any) -> None:
    """Continue the stream of a handler that waited and has finished."""
    task = message._task
    message._task = None
    message._waiting = None
    result = failed(filter, task.error) if task.error is not None else task.result
    if isinstance(result, Response):
        if answer(result) == STOP:
            message._answered = True
            return
    if message._resuming:
        return
    if message._held and message._buffered:
        body(filter, message)
    message._held = False
    try:
        host.continue_stream(message._direction)
    except Exception as error:
        log.error(traceback(error))


def body(filter: Any, message: Any, size: int = EVERYTHING) -> int:
    """Pass the buffered part of a body to the filter's handler, and return the action."""
    name = "on_response_body" if message._direction else "on_request_body"
    if name not in filter._overridden:
        return GO_ON
    handler = getattr(filter, name)
    try:
        result = handler(message, host.get_buffer(message._direction, 0, size), message.ended)
        result = at_once(result, name, "await the body in " + name.replace("body", "headers"))
    except Exception as error:
        result = failed(filter, error)
    if isinstance(result, Response):
        return answer(result)
    if isinstance(result, (bytes, str)):
        host.set_buffer(message._direction, 0, EVERYTHING, result)
    return GO_ON


def data(context: int, message: Any, filter: Any, size: int, end: bool) -> int:
    now.context = context
    message.ended = end
    task = message._task
    if task is None:
        return STOP if message._answered else body(filter, message, size)
    message._buffered = True
    if not end:
        return STOP
    return complete(message, filter)


def complete(message: Any, filter: Any) -> int:
    """Resume the handler that waits for the body, which is now complete, if there is one."""
    waiting = message._waiting
    if waiting is None:
        return STOP
    message._waiting = None
    message._resuming = True
    waiting.set(message._read())
    message._resuming = False
    if message._task is not None or message._answered:
        return STOP
    message._held = False
    return GO_ON


def request_headers(context: int, count: int, end: int) -> int:
    now.context = context
    filter = contexts[context]
    message = filter.request
    try:
        if end:
            message.ended = True
        elif "on_request_body" in filter._overridden:
            message._forget_length()
        result = filter.on_request_headers(message)
        if result is None:
            return GO_ON
    except Exception as error:
        result = failed(filter, error)
    return headers(filter, message, result)


def response_headers(context: int, count: int, end: int) -> int:
    now.context = context
    filter = contexts[context]
    message = filter.response
    try:
        if end:
            message.ended = True
        elif "on_response_body" in filter._overridden:
            message._forget_length()
        result = filter.on_response_headers(message)
        if result is None:
            return GO_ON
    except Exception as error:
        result = failed(filter, error)
    return headers(filter, message, result)


def trailers(context: int, message: Any, filter: Any, handler: Any) -> int:
    now.context = context
    message.ended = True
    if message._task is not None:
        going = complete(message, filter)
        if going == STOP:
            return STOP
    if message._answered:
        return STOP
    try:
        result = handler(message)
    except Exception as error:
        result = failed(filter, error)
    return headers(filter, message, result)


def request_body(context: int, size: int, end: int) -> int:
    filter = contexts[context]
    return data(context, filter.request, filter, size, end != 0)


def request_trailers(context: int, count: int) -> int:
    filter = contexts[context]
    return trailers(context, filter.request, filter, filter.on_request_trailers)


def response_body(context: int, size: int, end: int) -> int:
    filter = contexts[context]
    return data(context, filter.response, filter, size, end != 0)


def response_trailers(context: int, count: int) -> int:
    filter = contexts[context]
    return trailers(context, filter.response, filter, filter.on_response_trailers)


# Connections ----------------------------------------------------------------------------------------------------


def connection(filter: Any, direction: int, handler: Any, *arguments: Any) -> int:
    now.context = filter.id
    try:
        result = at_once(handler(*arguments), "a handler of connections", "give what waits to create_task")
    except Exception as error:
        log.error(traceback(error))
        result = None if filter.on_error is None else False
    if result is False:
        host.close_stream(direction)
        return STOP
    if isinstance(result, (bytes, str)):
        host.set_buffer(direction, 0, EVERYTHING, result)
    return GO_ON


def new_connection(context: int) -> int:
    return connection(contexts[context], DOWNSTREAM, contexts[context].on_connection)


def downstream_data(context: int, size: int, end: int) -> int:
    filter = contexts[context]
    now.context = context
    return connection(filter, DOWNSTREAM, filter.on_downstream_data, host.get_buffer(2, 0, size), end != 0)


def upstream_data(context: int, size: int, end: int) -> int:
    filter = contexts[context]
    now.context = context
    return connection(filter, UPSTREAM, filter.on_upstream_data, host.get_buffer(3, 0, size), end != 0)


def downstream_close(context: int, peer: int) -> None:
    connection(contexts[context], DOWNSTREAM, contexts[context].on_downstream_close, peer)


def upstream_close(context: int, peer: int) -> None:
    connection(contexts[context], UPSTREAM, contexts[context].on_upstream_close, peer)


# Replies, the end of contexts -----------------------------------------------------------------------------------


def http_call_response(context: int, token: int, count: int, size: int, trailer_count: int) -> None:
    now.context = context
    future = http_calls.pop(token, None)
    if future is None:
        return
    reply = None
    try:
        if count:
            reply = Reply(host.get_pairs(6), host.get_buffer(4, 0, size), host.get_pairs(7) if trailer_count else [])
    except Exception as error:
        future.fail(error)
    else:
        future.set(reply)


def grpc_initial_metadata(context: int, token: int, count: int) -> None:
    now.context = context
    stream = grpc_streams.get(token)
    if stream is not None:
        stream.metadata._add(host.get_pairs(4))


def grpc_message(context: int, token: int, size: int) -> None:
    now.context = context
    message = host.get_buffer(5, 0, size)
    if token in grpc_streams:
        grpc_streams[token]._received(message)
    elif token in grpc_calls:
        grpc_calls.pop(token).set(GrpcReply(0, "", message))


def grpc_trailing_metadata(context: int, token: int, count: int) -> None:
    now.context = context
    stream = grpc_streams.get(token)
    if stream is not None:
        stream.trailers._add(host.get_pairs(5))


def grpc_close(context: int, token: int, status: int) -> None:
    now.context = context
    details = host.status()[1]
    if token in grpc_streams:
        grpc_streams.pop(token)._closed(status, details)
    elif token in grpc_calls:
        grpc_calls.pop(token).set(GrpcReply(status, details, b""))


def on_tick(context: int) -> None:
    now.context = context
    tick(context)


def on_log(context: int) -> None:
    now.context = context
    filter = contexts.get(context)
    if filter is not None:
        try:
            at_once(filter.on_log(), "on_log", "have every(…) do what waits")
        except Exception as error:
            log.error(traceback(error))


def delete(context: int) -> None:
    contexts.pop(context, None)
    if tasks:
        for task in tasks.pop(context, ()):
            task.cancelled = True
    if grpc_streams:
        for stream in [one for one in grpc_streams.values() if one._context == context]:
            stream.cancel()


CALLBACKS = {
    "vm_start": vm_start,
    "configure": configure,
    "context_create": context_create,
    "tick": on_tick,
    "queue_ready": queue_ready,
    "new_connection": new_connection,
    "downstream_data": downstream_data,
    "upstream_data": upstream_data,
    "downstream_close": downstream_close,
    "upstream_close": upstream_close,
    "request_headers": request_headers,
    "request_body": request_body,
    "request_trailers": request_trailers,
    "response_headers": response_headers,
    "response_body": response_body,
    "response_trailers": response_trailers,
    "http_call_response": http_call_response,
    "grpc_initial_metadata": grpc_initial_metadata,
    "grpc_message": grpc_message,
    "grpc_trailing_metadata": grpc_trailing_metadata,
    "grpc_close": grpc_close,
    "foreign_function": foreign_function,
    "done": done,
    "log": on_log,
    "delete": delete,
}
