"""Kong's gateway under test: with the fixture ``proxywasm`` of the plugin for pytest, or a `Harness`.

@pytest.mark.proxywasm(profile="wasmx")
def test_a_route(proxywasm):
    kong = gateway(proxywasm, "kong.yaml", environment={"KONG_LUA_PACKAGE_PATH": "plugins/?.lua"})
    proxywasm.http["idp.example"] = 204
    assert kong.get("http://example.com/api").status == 200
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.kong.environment import Environment
from proxywasm_host.kong.exchange import NOBODY, as_call, asked
from proxywasm_host.kong.gateway import Gateway
from proxywasm_host.kong.plugin import HttpRequest, ServerCall, Sleep
from proxywasm_host.kong.setup import Setup, query
from proxywasm_host.kong.stream import KongStream
from proxywasm_host.kong.task import Answer, PluginCallout
from proxywasm_host.runtime.effects import CalloutFailed, Effect
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.testing.harness import FilterUnderTest, Harness

__all__ = ["GatewayUnderTest", "gateway"]


class GatewayUnderTest(FilterUnderTest):
    """A gateway, used like a chain of filters, with routes and plugins before them."""

    def __init__(self, harness: Harness, gateway: Gateway, plugins: list[Plugin]) -> None:
        super().__init__(harness, plugins)
        self.gateway = gateway

    def new_stream(self, plugins: Sequence[Plugin], properties: Mapping[str, PropertyValue]) -> KongStream:
        """A stream of the gateway."""
        return KongStream(self.gateway, properties=properties, buffer_limit=self.buffer_limit)


def gateway(harness: Harness, config: str | Path, *, environment: Mapping[str, str] | None = None) -> GatewayUnderTest:
    """Load a configuration of Kong, with this environment (``KONG_…``) or that of the process.

    HTTP requests of plugins are callouts to ``HOST:PORT`` or ``HOST``, which ``harness.http`` answers; sleeps end by
    the test's clock. Plugin servers of the environment are started, and end when the harness is closed.

    Raises: ConfigError; ValueError, if the harness has another profile than ``wasmx``.
    """
    if not harness.host.profile.nginx_phases:
        raise ValueError("a gateway of Kong has the profile wasmx: write @pytest.mark.proxywasm(profile='wasmx')")
    settings = Environment.read(os.environ if environment is None else environment)
    setup = Setup(Path(str(harness.find(config))), settings, query(settings))
    harness.resources.enter_context(setup.running())
    running = harness(setup.filters).plugins if setup.filters else []
    made = setup.gateway(harness.host, running)

    def perform(callout: PluginCallout) -> list[Effect]:
        effect: Any = callout.effect
        if isinstance(effect, Sleep):
            harness.clock.after(effect.seconds, lambda: harness.feed("time", 0, False, lambda: slept(callout)))
            return []
        if isinstance(effect, ServerCall):
            return harness.host.deliver(callout, asked(callout, effect))
        if not isinstance(effect, HttpRequest):
            return harness.host.deliver(callout, CalloutFailed(NOBODY))
        call = as_call(callout, effect)
        if call.cluster not in harness.http.clusters():
            call = replace(call, cluster=urlsplit(effect.url).hostname or "")
        return harness._call(call)

    def slept(callout: PluginCallout) -> list[Effect]:
        return harness.host.deliver(callout, Answer())  # type: ignore[arg-type]

    harness.performers[PluginCallout] = perform
    made.start()
    harness.feed("start", 0, False, harness.host.drain)
    return GatewayUnderTest(harness, made, running)
