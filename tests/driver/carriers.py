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
        close: bool = False,
        settled: Callable[[], bool] = lambda: True,
        **options: Any,
    ) -> list[str]:
        """With `close`, the plugin is closed then; `settled` is waited for before the driver ends."""
        self.messages, self._when = [], when or {}
        self._done.clear()
        main = self._threads if self.kind == "threads" else self._loop
        arguments = (f"c/probe_{version}", script, clusters, close, settled, options)
        if self.kind == "threads":
            main(*arguments)
        else:
            backend, backend_options = KINDS[self.kind]
            anyio.run(partial(main, *arguments), backend=backend, backend_options=backend_options)
        for thread in self._called:
            thread.join()
        return [message for message in self.messages if message != "done"]

    def _host(self, clusters: Any) -> Host:
        return Host(self.engine, services=Services(log=self, clusters=clusters))

    async def _loop(self, name, script, clusters, close, settled, options) -> None:
        with self._host(clusters) as host:
            plugin = host.load_plugin(code(name), configuration=script)
            async with AsyncDriver(host, **options) as driver:
                with anyio.fail_after(PATIENCE):
                    while not self._done.is_set():
                        await anyio.sleep(0.001)
                    if close:
                        driver.perform(plugin.close())
                    while not settled():
                        await anyio.sleep(0.001)
                assert not driver._conversations

    def _threads(self, name, script, clusters, close, settled, options) -> None:
        with self._host(clusters) as host:
            plugin = host.load_plugin(code(name), configuration=script)
            with ThreadDriver(host, **options) as driver:
                assert self._done.wait(PATIENCE), self.messages
                if close:
                    with driver.lock:
                        driver.perform(plugin.close())
                for _ in range(PATIENCE * 1000):
                    if settled():
                        break
                    threading.Event().wait(0.001)
                assert settled()
                assert not driver._conversations


@pytest.fixture(params=KINDS)
def run(request, engine):
    return Run(engine, request.param)
