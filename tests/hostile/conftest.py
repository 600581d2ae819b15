"""A host in which hostile guests come and go beside a filter that does its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import pytest

from proxywasm_host import Host, Limits, ModuleError, Plugin, PluginError, Services
from proxywasm_host.engine.protocol import Engine
from proxywasm_host.runtime.effects import Callout, CalloutFailed, HttpCall, HttpCallReply, QueueReady, RequestHeaders
from tests.support import REQUEST, RESPONSE, Lines, code, wat

MEMORY = 16 << 20
SHORT, LONG = 0.25, 10.0
"""Deadlines, for guests that are to meet theirs and for those that are not, on whatever machine."""
LATE = 5.0
"""Seconds after which a guest that a deadline should have ended is taken for one that it does not end."""


@dataclass
class Neighbourhood:
    """One host, with the filter that does its work."""

    host: Host
    log: Lines
    good: Plugin = field(init=False)

    def __post_init__(self) -> None:
        self.good = self.host.load_plugin(code("rust/headers"), name="good", configuration="good")
        self.check()

    def check(self) -> None:
        """The filter that does its work does it."""
        with self.host.http_stream([self.good]) as stream:
            (out,) = stream.request_headers(REQUEST, end_stream=True)
            assert isinstance(out, RequestHeaders)
            assert out.headers == [*REQUEST, (b"x-wasm", b"good")]
            assert stream.failure is None
        assert self.good.failure is None

    def run(self, module: bytes, script: str = "", deadline: float = LONG) -> str:
        """Let a guest meet everything that there is. Returns: why it was refused or failed, or nothing."""
        before = time.monotonic()
        try:
            plugin = self.host.load_plugin(module, name="bad", configuration=script, limits=Limits(MEMORY, deadline))
        except (ModuleError, PluginError) as error:
            self.check()
            return str(error)
        with plugin_closed(plugin):
            self._live(plugin)
            if plugin._vm is not None:
                assert plugin._vm.memory_bytes <= MEMORY
            told = "" if plugin.failure is None else plugin.failure.report()
        self.host.drain()
        assert time.monotonic() - before < deadline + LATE
        self.check()
        return told

    def _live(self, plugin: Plugin) -> None:
        host = self.host
        todo = [*host.drain(), *plugin.tick()]
        for _ in range(50):  # and no longer, for some feed themselves
            if not todo:
                break
            effect = todo.pop(0)
            if isinstance(effect, QueueReady):
                todo += effect.plugin.queue_ready(effect.token)
            elif isinstance(effect, Callout):
                answer = (
                    HttpCallReply([(b":status", b"200")]) if isinstance(effect, HttpCall) else CalloutFailed("reset")
                )
                todo += host.deliver(effect, answer)
        with host.http_stream([self.good, plugin]) as stream:
            stream.request_headers(REQUEST)
            stream.request_body(b"body")
            stream.request_trailers([(b"a", b"b")])
            if not stream.closed:
                stream.response_headers(RESPONSE)
                stream.response_body(b"body")
                stream.response_trailers([(b"a", b"b")])


class plugin_closed:
    """Closes a plugin, and what its end brings about."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.plugin.close()


@lru_cache(None)
def _neighbourhood(engine: Engine) -> Neighbourhood:
    log = Lines()
    return Neighbourhood(Host(engine, services=Services(log=log, clusters={"up"})), log)


@pytest.fixture(scope="package", autouse=True)
def _ended() -> Iterator[None]:
    yield
    _neighbourhood.cache_clear()


@pytest.fixture
def neighbourhood(engine: Engine) -> Iterator[Neighbourhood]:
    """The host of this engine, which all tests here have in common: what one guest leaves behind, the next one meets."""
    found = _neighbourhood(engine)
    found.log.take()
    yield found


@pytest.fixture
def probe(neighbourhood: Neighbourhood) -> Callable[..., str]:
    """Run a script (see ``tests/filters/c/probe.c``)."""
    return lambda script, deadline=LONG: neighbourhood.run(code("c/probe_0_2_1"), script, deadline)


HEAD = """(module {imports}
  {memory}
  (func (export "proxy_abi_version_0_2_1"))
  (func $allocate (export "proxy_on_memory_allocate") (param $size i32) (result i32) {allocate})
  {more}
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $n i32) {body} (i32.const 0)))"""


@pytest.fixture
def guest(neighbourhood: Neighbourhood) -> Callable[..., str]:
    """Run a guest with such code in its callback on request headers."""

    def run(
        body: str,
        more: str = "",
        imports: str = "",
        allocate: str = "(i32.const 1024)",
        memory: str = '(memory (export "memory") 2)',
        deadline: float = LONG,
    ) -> str:
        text = HEAD.format(imports=imports, memory=memory, allocate=allocate, more=more, body=body)
        return neighbourhood.run(wat(text), deadline=deadline)

    return run
