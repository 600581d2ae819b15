"""Failures of filters are told in the log, once each and not without end, and kept for who asks."""

from __future__ import annotations

import logging

import pytest

from proxywasm_host.abi.table import CALLBACKS, HOSTCALLS
from proxywasm_host.driver.filters import Filter, chain, load
from proxywasm_host.driver.health import REPORT_INTERVAL, FilterHealth, watch
from tests.support import REQUEST, code, wat

CALLBACKS_AND_HOSTCALLS = [row.name for row in (*CALLBACKS, *HOSTCALLS)]

TRAPS = "@on_request_headers\ntrap\n"
logger = logging.getLogger("proxywasm_host.asgi")


@pytest.fixture
def fail(host):
    """A watched plugin, and a function that lets it fail: ``watch, fail = fail(policy, …)``."""

    def make(policy="fail_reload", **options):
        [plugin] = load(host, [Filter(code("c/probe_0_2_1"), "probe", configuration=TRAPS, failure_policy=policy)])

        def fail():
            with host.http_stream([plugin]) as stream:
                stream.request_headers(REQUEST, True)

        return FilterHealth(plugin, logger, **options), fail

    return make


def test_hostcalls_that_a_filter_does_not_have_are_told_when_it_is_loaded(host, caplog):
    caplog.set_level(logging.INFO)
    allowed = [name for name in CALLBACKS_AND_HOSTCALLS if name != "proxy_get_property"]
    unknown = wat(
        """(module (import "env" "proxy_new_thing" (func (param i32) (result i32)))
        (memory (export "memory") 1) (func (export "malloc") (param i32) (result i32) i32.const 0)
        (func (export "proxy_abi_version_0_2_1")))"""
    )
    plugins = load(
        host,
        [
            Filter(code("rust/properties"), "restricted", capabilities=allowed),
            Filter(unknown, "newer", unknown_imports="stub"),
            Filter(code("rust/headers"), "usual"),
        ],
    )
    watch(plugins, logger)
    assert [record.getMessage() for record in caplog.records] == [
        "restricted: env.proxy_get_property is a refused hostcall: it is not among the capabilities of this filter",
        "newer: env.proxy_new_thing is a stub: it does nothing, and answers UNIMPLEMENTED",
    ]
    assert {each.status for each in plugins[2].imports if each.name.startswith("env.")} == {"have"}


def test_a_failure_is_reported_as_a_whole(fail, caplog):
    watch, once = fail()
    once()
    [record] = caplog.records
    assert (record.name, record.levelname) == ("proxywasm_host.asgi", "ERROR")
    first, where, *_ = record.getMessage().splitlines()
    assert first.startswith("plugin 'probe' failed in a callback: ")
    assert where == "  in proxy_on_request_headers"
    assert watch.last_failure.report() == record.getMessage()


def test_a_plugin_that_fails_again_and_again_is_not_told_without_end(fail, caplog):
    now = 0.0
    watch, once = fail(clock=lambda: now)
    for _ in range(5):
        once()
    assert len(caplog.records) == 1
    now = REPORT_INTERVAL
    once()
    assert [record.getMessage().splitlines()[-1] for record in caplog.records][1:] == [
        "  failures not reported before: 4"
    ]
    assert watch.status().failures == 6


@pytest.mark.parametrize(
    ("policy", "after"), [("fail_closed", "failed"), ("fail_open", "bypassed"), ("fail_reload", "failed")]
)
def test_how_a_filter_is(fail, policy, after):
    watch, once = fail(policy)
    assert (watch.status().state, watch.status().last_failure) == ("running", None)
    once()
    status = watch.status()
    assert (status.name, status.state, status.reloads, status.failures) == ("probe", after, 0, 1)
    assert status.last_failure.callback == "proxy_on_request_headers"


def test_a_guest_that_is_replaced_runs_and_its_failure_is_kept(fail, host):
    watch, once = fail()
    once()
    host.http_stream([watch.plugin]).close()
    status = watch.status()
    assert (status.state, status.reloads, status.failures) == ("running", 1, 1)
    assert status.last_failure is not None


def test_who_wants_to_know_is_told(fail, caplog):
    told = []
    _, once = fail(on_failure=lambda plugin, failure: told.append((plugin.name, failure.callback)))
    once()
    once()
    assert told == [("probe", "proxy_on_request_headers")] * 2


def test_who_wants_to_know_and_raises_spoils_nothing(fail, host, caplog):
    def raises(plugin, failure):
        raise ValueError("of the embedder")

    watch, once = fail(on_failure=raises)
    once()
    assert "of the embedder" in caplog.text
    assert watch.status().failures == 1


@pytest.mark.parametrize(
    ("filters", "write"),
    [
        ("auth.wasm", r"filters are a list, even for one filter: write \['auth.wasm'\]"),
        (b"\0asm", r"write \[code\]"),
        (Filter("auth.wasm"), r"write \[Filter\(…\)\]"),
        (None, "filters are a list"),
        ([3], "a filter is the path of a module, its bytes, or a Filter with one; not 3"),
    ],
)
def test_what_is_no_chain_is_refused_with_what_to_write(filters, write):
    with pytest.raises(TypeError, match=write):
        chain(filters)
