"""Fixtures: an event loop of each kind, and applications behind scripted filters."""

from __future__ import annotations

import pytest

from proxywasm_host import Services
from proxywasm_host.integrations.asgi import Filter, ProxyWasmMiddleware
from tests.integrations.middlewares import MIDDLEWARES, Both
from tests.support import code

BACKENDS = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]


@pytest.fixture(params=BACKENDS)
def anyio_backend(request):
    return request.param


@pytest.fixture
def wrap(engine, log):
    """An application behind filters: scripts for probes, or filters."""

    def wrap(app, *filters, **options):
        async def only_http(scope, receive, send):
            assert scope["type"] == "http", "no lifespan here"
            await app(scope, receive, send)

        chain = [
            Filter(code("c/probe_0_2_1"), f"probe{number}", configuration=each) if isinstance(each, str) else each
            for number, each in enumerate(filters, 1)
        ]
        options.setdefault("services", Services(log=log))
        return ProxyWasmMiddleware(only_http, chain, engine=engine, **options)

    return wrap


@pytest.fixture(params=MIDDLEWARES)
def carry(request, engine, log):
    """Carry requests through a filter: ``carry(script of a probe or a filter or a chain, failure policy of a probe, **options)``.
    `clients` may be by kind of middleware."""
    made = []

    def carry(script="", policy=None, **options):
        options.setdefault("services", Services(log=log))
        given = {"failure_policy": policy} if policy else {}
        if set(options.get("clients", ())) == set(MIDDLEWARES):
            options["clients"] = options["clients"][request.param]
        probe = isinstance(script, str)
        chain = [Filter(code("c/probe_0_2_1"), "probe", configuration=script, **given)] if probe else script
        chain = chain if isinstance(chain, list) else [chain]
        made.append(Both(request.param, chain, engine=engine, **options))
        return made[-1]

    yield carry
    for both in made:
        if both.kind == "wsgi":
            both.app.close()
