"""One filter in a driver of each kind, for tests of callouts that read the same for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio
import pytest

from proxywasm_host import Host, Services
from proxywasm_host.driver.asynchronous import AsyncDriver
from proxywasm_host.driver.threaded import ThreadDriver
from tests.support import code

KINDS = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
    "threads": None,
}
PATIENCE = 10


class Run:
    """A probe with a script in a driver: ``run(script, clusters)`` gives what it logged until it says ``done``.

    `when` has functions that are called, in another thread, once the probe has logged a line.
    """

    def __init__(self, engine: Any, kind: str) -> None:
        self.engine, self.kind = engine, kind
        self.level = 0
        self.messages: list[str] = []
        self._done = threading.Event()
        self._when: Mapping[str, Callable[[], object]] = {}
        self._called: list[threading.Thread] = []

    def log(self, line: Any) -> None:
        self.messages.append(line.message)
        if line.message in self._when:
            thread = threading.Thread(target=self._when[line.message])
            thread.start()
            self._called.append(thread)
        if line.message == "done":
            self._done.set()

    def __call__(
        self,
        script: str,
        clusters: Any,
        *,
        version: str = "0_2_1",
        when: Mapping[str, Callable[[], object]] | None = None,
        ready: Callable[[], bool] = lambda: True,
        close: bool = False,
        settled: Callable[[], bool] = lambda: True,
    ) -> list[str]:
        """Once `ready`, the plugin is closed with `close`; `settled` is waited for before the driver ends."""
        self.messages, self._when = [], when or {}
        self._done.clear()
        arguments = (f"c/probe_{version}", script, clusters, ready, close, settled)
        kind = KINDS[self.kind]
        if kind is None:
            self._threads(*arguments)
        else:
            anyio.run(partial(self._loop, *arguments), backend=kind[0], backend_options=kind[1])
        for thread in self._called:
            thread.join()
        return [message for message in self.messages if message != "done"]

    def done(self) -> None:
        """As if the probe had said so."""
        self._done.set()

    def _host(self, clusters: Any) -> Host:
        return Host(self.engine, services=Services(log=self, clusters=clusters))

    async def _loop(self, name, script, clusters, ready, close, settled) -> None:
        async def until(condition: Callable[[], bool]) -> None:
            while not condition():
                await anyio.sleep(0.001)

        with self._host(clusters) as host:
            plugin = host.load_plugin(code(name), configuration=script)
            async with AsyncDriver(host) as driver:
                with anyio.fail_after(PATIENCE):
                    await until(self._done.is_set)
                    await until(ready)
                    if close:
                        driver.perform(plugin.close())
                    await until(settled)
                assert not driver._conversations

    def _threads(self, name, script, clusters, ready, close, settled) -> None:
        def until(condition: Callable[[], bool]) -> None:
            for _ in range(PATIENCE * 1000):
                if condition():
                    return
                threading.Event().wait(0.001)
            raise AssertionError(self.messages)

        with self._host(clusters) as host:
            plugin = host.load_plugin(code(name), configuration=script)
            with ThreadDriver(host) as driver:
                until(self._done.is_set)
                until(ready)
                if close:
                    with driver.lock:
                        driver.perform(plugin.close())
                until(settled)
                assert not driver._conversations


@pytest.fixture(params=KINDS)
def run(request, engine):
    return Run(engine, request.param)
