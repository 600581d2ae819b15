"""`FilterConfig`: a filter is described once, and everything that loads one takes the description."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from proxywasm_host import FailurePolicy, FilterConfig, Limits
from proxywasm_host.driver.filters import Filter, load
from proxywasm_host.runtime.filter_config import plugin_names
from tests.support import FILTERS, REQUEST, code

HEADERS = FILTERS / "rust" / "headers.wasm"


def added(host, plugin) -> list[tuple[bytes, bytes]]:
    """The header that the filter puts its configuration into."""
    with host.http_stream([plugin]) as stream:
        [effect] = stream.request_headers(REQUEST, end_stream=True)
    return [pair for pair in effect.headers if pair[0] == b"x-wasm"]


def test_a_host_takes_a_description_or_its_fields(host):
    described = FilterConfig(HEADERS, configuration="hello", vm_id="v", failure_policy="fail_open")
    plugins = [
        host.load_plugin(described),
        host.load_plugin(HEADERS, configuration="hello", vm_id="v", failure_policy="fail_open"),
        *load(host, [described]),
    ]
    for plugin in plugins:
        assert added(host, plugin) == [(b"x-wasm", b"hello")]
        assert (plugin.name, plugin.config) == ("headers", described)
    assert len({plugin._vm for plugin in plugins}) == 1


def test_what_is_not_said_is_the_hosts(host):
    plugin = host.load_plugin(FilterConfig(code("rust/headers")))
    assert (plugin.name, plugin._vm.config.profile, plugin._vm.config.limits) == ("", host.profile, host.limits)
    limits = Limits(memory=64 << 20)
    plugin = host.load_plugin(FilterConfig(code("rust/headers"), profile="spec", limits=limits))
    assert (plugin._vm.config.profile.name, plugin._vm.config.limits) == ("spec", limits)


def test_every_field_is_an_argument_of_load_plugin(host):
    config = FilterConfig(HEADERS, "a name", configuration="x")
    given = {each.name: getattr(config, each.name) for each in fields(FilterConfig)}
    assert host.load_plugin(given.pop("code"), **given).config == config
    with pytest.raises(TypeError, match="unexpected keyword argument 'nam'"):
        host.load_plugin(HEADERS, nam="x")
    with pytest.raises(TypeError, match="a filter is the path of its file, its URL, or its bytes, not FilterConfig"):
        host.load_plugin(config, name="another")


def test_carriers_heal_where_nothing_is_said():
    described, carried = FilterConfig("a.wasm"), Filter("a.wasm")
    assert (described.failure_policy, described.reload_interval) == (FailurePolicy.FAIL_CLOSED, 1.0)
    assert (carried.failure_policy, carried.reload_interval) == (FailurePolicy.FAIL_RELOAD, 0.0)
    other = [f.name for f in fields(Filter) if getattr(described, f.name) != getattr(carried, f.name)]
    assert other == ["failure_policy", "reload_interval"]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ([FilterConfig("/x/auth.wasm")], ["auth"]),
        ([FilterConfig(Path("/x/auth.v2.wasm"), "mine"), FilterConfig(b"")], ["mine", ""]),
        ([FilterConfig("a.wasm"), FilterConfig("b.wasm"), FilterConfig("x/a.wasm")], ["a-1", "b", "a-3"]),
        ([FilterConfig("a.wasm"), FilterConfig("b.wasm", "a")], ["a-1", "a-2"]),
    ],
)
def test_filters_of_a_chain_have_names_of_their_own(filters, names):
    assert plugin_names(filters) == names


def test_what_a_filter_is_configured_with_is_not_shown():
    shown = repr(FilterConfig("a.wasm", "x", configuration="secret 1", vm_configuration="secret 2"))
    assert "secret" not in shown
    assert "name='x'" in shown


def test_iterators_are_read_once(host):
    described = FilterConfig(code("c/minimal"), capabilities=iter(["proxy_log", "proxy_on_vm_start"]), hostcalls=iter(()))
    assert (described.capabilities, described.hostcalls) == (frozenset(["proxy_log", "proxy_on_vm_start"]), ())
    plugins = [host.load_plugin(described) for _ in range(2)]
    assert [plugin._vm.config.capabilities for plugin in plugins] == [described.capabilities] * 2
