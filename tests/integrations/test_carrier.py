"""What both middlewares are told, and tell: they refuse what is wrong where it is given, and say how filters are."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from proxywasm_host import Limits, Services
from proxywasm_host.driver import dispatch
from proxywasm_host.integrations import asgi
from proxywasm_host.integrations.carrier import with_clusters
from proxywasm_host.runtime.effects import HttpCall
from tests.integrations.middlewares import MIDDLEWARES

TRAPS = "@on_request_headers\nget_header_map_value 0 x-trap\nif_status 0\ntrap\n"


@pytest.fixture(params=MIDDLEWARES)
def middleware(request):
    return MIDDLEWARES[request.param]


def hello():
    raise AssertionError("it is not called")


# -- What is wrong is said where it is given ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "write"),
    [
        ({"filters": "auth.wasm"}, r"write \['auth.wasm'\]"),
        ({"filters": Path("auth.wasm")}, r"write \[PosixPath\('auth.wasm'\)\]"),
        ({"filters": asgi.Filter("auth.wasm")}, r"write \[Filter\(…\)\]"),
        ({"filters": b"\0asm"}, r"write \[code\]"),
        ({"filters": [("auth.wasm", "x")]}, r"a filter is the path .* not \('auth.wasm', 'x'\)"),
        ({"app": "auth.wasm"}, "app must be an application, which comes first"),
        ({"clusters": ["idp"]}, "clusters must be a mapping of names to URLs"),
        ({"clusters": {"idp": 8000}}, "clusters are URLs or Clusters by name, not 'idp': 8000"),
        ({"properties": "route"}, "properties must be a mapping by name"),
        ({"buffer_limit": "1MiB"}, "buffer_limit must be a number of bytes: 1 << 20; not '1MiB'"),
        ({"buffer_limit": True}, "buffer_limit must be a number of bytes"),
        ({"clients": {"redis": print}}, r"clients must be functions by the type of callout: \{RedisCall: my_client\}"),
        ({"clients": {HttpCall: "http://x"}}, "clients must be functions by the type of callout"),
        ({"services": {"clusters": {}}}, r"services must be a Services\(…\)"),
        ({"limits": 5.0}, r"limits must be Limits\(memory=256 << 20, deadline=5.0\); not 5.0"),
        ({"on_failure": "log"}, "on_failure must be a function of a plugin and a failure"),
    ],
)
def test_what_is_wrong_is_refused_with_what_to_write(middleware, options, write):
    given = {"app": hello, "filters": [], **options}
    with pytest.raises(TypeError, match=write):
        middleware(given.pop("app"), given.pop("filters"), **given)


def test_clusters_are_said_in_one_place(middleware):
    assert "idp" in with_clusters(Services(clusters={"idp"}), {"idp": "http://x"}).clusters
    with pytest.raises(ValueError, match="has 'idp', for which clusters= has no URL: give all clusters in one place"):
        middleware(hello, [], services=Services(clusters={"idp"}), clusters={"other": "http://x"})


@pytest.mark.parametrize("clusters", [None, {}, {"idp": "http://127.0.0.1:1"}])
def test_a_cluster_that_is_not_known_is_told(carry, caplog, clusters):
    script = '@on_request_headers\nhttp_call nobody :method=GET&:path=/&:authority=a "" "" 1000\n'
    assert carry(script, clusters=clusters).ask({}, {}) == [200, 200]
    names = "'idp'" if clusters else "none"
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"a filter calls the unknown cluster 'nobody'; the clusters are {names}"]


# -- How filters are ---------------------------------------------------------------------------------------------------


def test_failures_are_told_and_kept(carry, caplog):
    told = []
    served = carry(TRAPS, "fail_closed", on_failure=lambda plugin, failure: told.append((plugin.name, failure.kind)))
    assert [(each.name, each.state) for each in served.app.status()] == [("probe", "loading")]
    assert served.ask({}, {"x-trap": "1"}, {}) == [200, 503, 503]
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.name == f"proxywasm_host.{served.kind}"
    assert record.getMessage().startswith("plugin 'probe' failed in a callback: ")
    assert told == [("probe", "trap")]
    [status] = served.status
    assert (status.name, status.state, status.reloads, status.failures) == ("probe", "failed", 0, 1)
    assert status.last_failure.report() == record.getMessage()


def test_a_guest_that_fails_is_replaced_at_once(carry):
    served = carry(TRAPS, None)
    assert served.ask({"x-trap": "1"}, {}) == [503, 200]
    [status] = served.status
    assert (status.state, status.reloads, status.failures) == ("running", 1, 1)


def test_a_guest_that_fails_is_replaced_though_no_request_comes(carry, monkeypatch):
    """Else who sends nothing until all is well would wait for ever."""
    monkeypatch.setattr(dispatch, "HEAL_INTERVAL", 0.01)
    served = carry(TRAPS)

    def until_it_is_replaced(ask):
        until = time.monotonic() + 10
        while ask()[0].reloads != 1:
            assert time.monotonic() < until
            time.sleep(0.005)

    served.until = until_it_is_replaced
    assert served.ask({"x-trap": "1"}) == [503]
    [status] = served.status
    assert (status.state, status.reloads, status.failures) == ("running", 1, 1)


@pytest.mark.parametrize("policy", ["fail_closed", "fail_open"])
def test_a_guest_that_fails_is_not_replaced_where_its_policy_does_not_say_so(carry, policy, monkeypatch):
    monkeypatch.setattr(dispatch, "HEAL_INTERVAL", 0.01)
    served = carry(TRAPS, policy)
    served.until = lambda _: time.sleep(0.1)
    assert served.ask({"x-trap": "1"}) == [503]
    assert served.status[0].reloads == 0


def test_a_filter_that_loops_is_stopped(carry):
    assert carry("@on_request_headers\nloop\n", limits=Limits(deadline=0.2)).ask({}) == [503]


def test_guests_have_limits_by_default(middleware):
    assert middleware(hello, [])._make_host().limits == Limits(memory=256 << 20, deadline=5.0)
