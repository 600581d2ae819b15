"""What a person sees of an object in a debugger, a log, a failed assertion."""

from __future__ import annotations

from proxywasm_host import FilterConfig
from proxywasm_host.driver.dispatch import Dispatcher
from proxywasm_host.driver.filters import Filter
from proxywasm_host.services import (
    InMemoryMetrics,
    InMemorySharedData,
    InMemorySharedQueues,
    ManualClock,
    StandardLogging,
    SystemClock,
)

REQUEST = [(b":method", b"GET"), (b":path", b"/"), (b":authority", b"example.com"), (b":scheme", b"http")]
SCRIPT = "@on_configure\nset_tick_period_milliseconds 5\n@on_request_headers\nreturn 1\n@on_tick\ntrap"


def test_a_host_and_what_it_makes(host, probe):
    plugin = probe(SCRIPT)
    engine = f"{host.engine.name} {host.engine.version}"
    assert (repr(host), repr(plugin)) == (f"<Host on {engine} with 'probe'>", "<Plugin 'probe' running>")
    assert repr(plugin._vm) == "<Vm '' of 'probe', ABI 0.2.1, running>"
    assert repr(plugin._root) == "<RootContext 1 of 'probe'>"
    stream = host.http_stream([plugin])
    stream.request_headers(REQUEST, True)
    assert repr(stream) == "<HttpStream paused, through 'probe'>"
    assert repr(host.http_stream([])) == "<HttpStream open, through no filter>"
    assert repr(host.tcp_stream([])) == "<TcpStream open, through no filter>"
    plugin.tick()
    assert repr(plugin) == "<Plugin 'probe' failed>"
    assert repr(plugin._vm).startswith("<Vm '' of 'probe', ABI 0.2.1, failed: ")
    stream.close()
    assert repr(stream) == "<HttpStream closed, through 'probe'>"


def test_a_context_says_whose_it_is(host, probe):
    plugin = probe("")
    with host.http_stream([plugin]) as stream:
        stream.request_headers(REQUEST, True)
        assert [repr(context) for context in plugin._vm.contexts.values()] == [
            "<Context 0>",
            "<RootContext 1 of 'probe'>",
            "<HttpContext 2 of 'probe'>",
        ]


def test_an_engine(engine):
    assert repr(engine) == f"<{type(engine).__name__} {engine.version}, {engine.note}>"


def test_a_filter_shows_what_was_said_of_it_but_no_secrets():
    """A configuration and variables of the environment often hold one."""
    said = FilterConfig("auth.wasm", configuration="token", environment={"TOKEN": "x"}, root_id="r")
    assert repr(said) == "FilterConfig('auth.wasm', root_id='r')"
    assert repr(FilterConfig(b"\0asm", failure_policy="fail_open")) == (
        "FilterConfig(<4 bytes>, failure_policy=<FailurePolicy.FAIL_OPEN: 'fail_open'>)"
    )
    assert repr(Filter("auth.wasm")) == "Filter('auth.wasm')"


def test_services():
    data, queues, metrics, clock = InMemorySharedData(), InMemorySharedQueues(), InMemoryMetrics(), ManualClock(5 * 10**9)
    assert repr(data) == "<InMemorySharedData with 0 keys, 0 bytes>"
    assert repr(queues) == "<InMemorySharedQueues with 0 queues, 0 waiting>"
    data.set("vm", b"key", b"value")
    queues.enqueue(queues.register("vm", b"queue", lambda _: None), b"message")
    metrics.define(0, "requests")
    clock.advance(0.25)
    assert repr(data).startswith("<InMemorySharedData with 1 key, ")
    assert repr(queues) == "<InMemorySharedQueues with 1 queue, 1 waiting>"
    assert repr(metrics) == "<InMemoryMetrics with 1 metric>"
    assert repr(clock) == "<ManualClock at 5.250 s>"
    assert (repr(SystemClock()), repr(StandardLogging(3))) == ("<SystemClock>", "<StandardLogging from level 3 on>")


def test_a_driver_says_whose_it_is(host):
    assert repr(Dispatcher(host)) == f"<Dispatcher of {host!r}>"
