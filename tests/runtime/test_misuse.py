"""Objects that were never made, that lose what they are made of, or that change while they are at work: an error says so.

With the C extension, each of these could be a crash, which no embedder's mistake and no finaliser may be.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections import deque
from contextlib import suppress

import pytest

from proxywasm_host import Host, Services
from proxywasm_host.abi.context import ContextState
from proxywasm_host.abi.marshal import Calls, Guest
from proxywasm_host.abi.native import NATIVE
from proxywasm_host.runtime.effects import RequestHeaders
from proxywasm_host.runtime.fast_path import REQUEST
from proxywasm_host.runtime.filter_chain import FilterChain
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.http_context import HttpContext
from proxywasm_host.runtime.outbox import Outbox
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.runtime.vm_base import VmBase
from proxywasm_host.services import ManualClock
from tests.support import REQUEST as ASKED
from tests.support import RESPONSE as ANSWER
from tests.support import code

needs_native = pytest.mark.skipif(NATIVE is None, reason="there is no compiler, or PROXYWASM_NATIVE=no")
MISUSED = (AttributeError, IndexError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What Python says to misuse. Not among it: SystemError, which says that C code returned nothing and no reason."""


def others_are_served():
    """Whatever was done to some objects, others know nothing of it."""
    gc.collect()
    with Host("wasmtime") as other:
        plugin = other.load_plugin(code("rust/headers"), configuration="hello")
        with other.http_stream([plugin]) as stream:
            (sent,) = stream.request_headers(ASKED, True)
            assert sent.headers == [*ASKED, (b"x-wasm", b"hello")]
            (answer,) = stream.response_headers(ANSWER, True)
            assert answer.headers[-1] == (b"server", b"proxy-wasm")
            assert stream.failure is None


pytestmark = pytest.mark.in_child(afterwards=others_are_served)


@pytest.fixture
def host(log):
    with Host("wasmtime", services=Services(log=log)) as host:
        yield host


@pytest.fixture
def plugin(host):
    return host.load_plugin(code("c/probe_0_2_1"))


def members(kind: type) -> list[str]:
    """What objects of a class have beside what every object has."""
    return sorted(name for name in dir(kind) if name not in dir(type("Plain", (), {})))


# -- Never made --------------------------------------------------------------------------------------------------

ARGUMENTS = [
    (),
    (1,),
    (1, 2),
    (0, True),
    ([], True),
    (0, [], True),
    ((1, 2, 3),),
    (object(), "on_done"),
    (None, print, 1),
]
CLASSES = [VmBase, Guest, HttpContext, HttpStream, Host, Outbox, FilterChain, Plugin, ContextState, Calls]


@needs_native
@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_what_was_never_made(kind):
    def new():
        return kind.__new__(kind, 16) if kind is Calls else kind.__new__(kind)

    for name in members(kind):
        for arguments in ARGUMENTS:
            with suppress(*MISUSED):
                getattr(new(), name)(*arguments)
        for odd in (None, 5, [], {}):
            changed = new()
            with suppress(*MISUSED):
                setattr(changed, name, odd)
                getattr(changed, name)
        changed = new()
        with suppress(*MISUSED):
            delattr(changed, name)
            getattr(changed, name)


@needs_native
def test_the_extension_without_the_library(tmp_path):
    """Its types are of no use before the Python code has handed over its own."""
    script = f"""
import importlib.util
from types import SimpleNamespace as Made
spec = importlib.util.spec_from_file_location("proxywasm_host._native", {NATIVE.__file__!r})
native = importlib.util.module_from_spec(spec)
spec.loader.exec_module(native)
host = native.HostBase(Made(clock=Made(time_ns=lambda: 5)))
for make in (lambda: host.http_stream([]), lambda: native.HttpStreamBase(host, [], {{}}, 5, None)):
    try:
        make()
    except RuntimeError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, 2 * "proxywasm_host.runtime.http was not imported\n")


@needs_native  # Python's objects can be made again
def test_what_is_made_is_made_once(host, plugin):
    stream = host.http_stream([plugin])
    for made, arguments in (
        (stream, (host, [plugin], {}, 5, None)),
        (stream._contexts[0], (stream, plugin)),
        (stream._request, (stream, REQUEST, [])),
        (plugin._vm, (plugin._vm.config, plugin._vm.bytecode, None, host.services, host._outbox)),
    ):
        with pytest.raises(RuntimeError, match="once"):
            made.__init__(*arguments)
    stream.close()


# -- Taken apart -------------------------------------------------------------------------------------------------

PARTS = {
    "host": lambda stream: stream.host,
    "outbox": lambda stream: stream.host._outbox,
    "plugin": lambda stream: stream._contexts[0].plugin,
    "vm": lambda stream: stream._contexts[0].vm,
    "guest": lambda stream: stream._contexts[0].vm.guest,
    "root": lambda stream: stream._contexts[0].root,
    "stream": lambda stream: stream,
    "context": lambda stream: stream._contexts[0],
    "chain": lambda stream: stream._request,
}


def go_through(host, plugin, stream) -> None:
    """A request and its response; each step may be refused."""
    for step in (
        lambda: stream.request_headers(ASKED),
        lambda: stream.response_headers(ANSWER),
        lambda: stream.response_body(b"body", True),
        stream.close,
        lambda: host.http_stream([plugin]).request_headers(ASKED),
        plugin.close,
        host.close,
    ):
        with suppress(*MISUSED):
            step()


@needs_native
@pytest.mark.parametrize("part", PARTS)
def test_what_lost_a_part(part, log):
    """Every member that C code reads is taken away, or is something else, before a request comes."""
    kinds = (type(NATIVE.VmBase.failure), type(NATIVE.VmBase.stop_iteration))
    with Host("wasmtime", services=Services(log=log)) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"))
        kind = type(PARTS[part](host.http_stream([plugin])))
    for name in [name for name in members(kind) if isinstance(getattr(kind, name), kinds)]:
        for odd in ("taken away", None, [], {}):
            host = Host("wasmtime", services=Services(log=log))
            plugin = host.load_plugin(code("c/probe_0_2_1"))
            stream = host.http_stream([plugin])
            with suppress(*MISUSED):
                if odd == "taken away":
                    delattr(PARTS[part](stream), name)
                else:
                    setattr(PARTS[part](stream), name, odd)
            go_through(host, plugin, stream)


@needs_native
def test_a_context_whose_root_is_something_else(host, plugin):
    with host.http_stream([plugin]) as stream:
        ContextState.__init__(stream._contexts[0], 7, "no context")
        stream.request_headers(ASKED)


# -- While it is at work -----------------------------------------------------------------------------------------


@needs_native
def test_an_end_that_has_another_chain_taken(host):
    with host.http_stream([]) as stream:

        class End:
            def __bool__(self) -> bool:
                stream._request = FilterChain(stream, REQUEST, [])
                return True

        assert stream.request_headers(ASKED, End()) == [RequestHeaders(ASKED, True, stream)]


def test_details_that_close_the_stream_themselves(host, plugin):
    stream = host.http_stream([plugin])
    stream.request_headers(ASKED)

    class Details:
        def __bool__(self) -> bool:
            stream.close()
            return False

    stream.close(Details())
    assert len(plugin._vm.contexts) == 2


def test_a_clock_that_has_its_host_have_another(log):
    class Clock(ManualClock):
        def time_ns(self) -> int:
            host.services = Services(log=log, clock=Clock())
            return super().time_ns()

    with Host("wasmtime", services=Services(log=log, clock=Clock())) as host:
        host.http_stream([]).close()
        host.http_stream([]).close()


def test_what_takes_headers_away_while_it_goes(host, plugin):
    """Streams are logged with headers that are there then."""

    class Odd:
        def __del__(self) -> None:
            stream._request.headers, stream._response.headers = [(b"x", b"y")], []

    for place in range(2):
        stream = host.http_stream([plugin])
        stream.request_headers(ASKED)
        stream.response_headers(ANSWER)
        stream._request.headers = [(b"a", b"b"), (b"c", b"d")]
        stream._response.headers = [(b"a", b"b"), (b"c", b"d")]
        stream._contexts[0].buffers[place] = Odd()
        stream._contexts[0].maps[place] = [Odd()]
        stream.close()


@pytest.mark.parametrize("action", [-1, 1 << 70, None, "x"])
def test_a_filter_that_answers_what_is_no_action(host, plugin, action):
    class Odd:
        def on_headers(self, *_):
            return action

    stream = host.http_stream([plugin])
    stream._request.filters[0] = Odd()
    with suppress(*MISUSED, OverflowError):
        stream.request_headers(ASKED)


@pytest.mark.parametrize("gone", ["idle", "context", "failure"])
def test_a_vm_that_loses_a_part_in_a_callback(gone):
    vm = VmBase(object(), deque())
    with suppress(AttributeError):
        vm.enter(object(), lambda: delattr(vm, gone))
    with suppress(*MISUSED):
        vm.enter(object(), print)


@needs_native
def test_callbacks_that_go_while_they_are_asked():
    class Odd:
        def __getattr__(self, name: str):
            callbacks.clear()
            raise AttributeError(name)

    callbacks = {name: Odd() for name in ("on_context_create", "on_request_headers", "on_done")}
    vm = VmBase(object(), deque())
    vm.callbacks = callbacks
    assert vm.call(object(), "on_done", 1) is None


class Listening:
    """A listener that does something in each callback on the request's headers."""

    def __init__(self, action) -> None:
        self.action = action

    def callback(self, context, row, args) -> None:
        if row.key == "on_request_headers":
            self.action(context)

    def returned(self, *_, failed) -> None:
        pass

    def hostcall(self, *_) -> None:
        pass


@pytest.mark.parametrize("part", ["headers", "stream", "stopped"])
def test_a_path_that_loses_a_part_in_a_callback(part, log):
    def take_away(context) -> None:
        with suppress(AttributeError):
            delattr(context.stream._request, part)

    with Host("wasmtime", services=Services(log=log), listener=Listening(take_away)) as host:
        stream = host.http_stream([host.load_plugin(code("c/probe_0_2_1"))] * 2)
        with suppress(*MISUSED):
            stream.request_headers(ASKED)


def test_a_stream_that_a_guest_would_have_closed(log):
    """A listener closes the stream while the guest runs, which it may not; what was begun for that is taken back."""

    def close(context) -> None:
        with pytest.raises(RuntimeError, match="an event was fed to a guest that runs"):
            stream.close()
        seen.append((context.read_only, context.maps[0]))

    seen = []
    with Host("wasmtime", services=Services(log=log), listener=Listening(close)) as host:
        stream = host.http_stream([host.load_plugin(code("c/probe_0_2_1"))])
        stream.request_headers(ASKED)
    assert seen == [(False, None)]


# -- The collector -----------------------------------------------------------------------------------------------


def with_the_next_list(finaliser, call):
    """Have the collector come, and run a finaliser, when `call` makes its first list (in CPython before 3.12)."""

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            finaliser()

    before = gc.get_threshold()
    spare = [[] for _ in range(200)]  # else one that lies ready is taken
    gc.collect()
    gc.disable()
    Garbage()
    gc.set_threshold(1)
    gc.enable()
    try:
        result = call()
    finally:
        gc.set_threshold(*before)
        spare.clear()
        gc.collect()
    return result


def test_a_finaliser_that_takes_the_effects():
    box, taken = Outbox(), []
    box.put(1)
    box.notify(2)
    taken += with_the_next_list(lambda: taken.extend(box.drain()), box.drain)
    assert taken == [1, 2]
    assert box.drain() == []


@pytest.mark.parametrize("places", ["maps", "buffers"])
def test_a_finaliser_that_asks_for_the_same_list(places):
    state, seen = ContextState(2, ContextState(1)), []
    found = with_the_next_list(lambda: seen.append(getattr(state, places)), lambda: getattr(state, places))
    assert seen[0] is found is getattr(state, places)


def test_remembered_calls_that_record_others_when_they_go():
    class Odd:
        def __init__(self) -> None:
            alive.add(id(self))

        def __del__(self) -> None:
            alive.discard(id(self))
            if calls is not None:
                calls.append(("inner", (), None))

    alive: set[int] = set()
    calls = Calls(2)
    for _ in range(5):
        calls.append(("outer", (Odd(),), Odd()))
    assert len(calls) == len(list(calls)) == 2
    calls = None
    assert not alive
