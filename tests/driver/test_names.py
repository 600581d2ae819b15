"""Addresses of hosts, in every driver, as the system finds them."""

from __future__ import annotations

from functools import partial

import pytest

from proxywasm_host import Host
from proxywasm_host.driver.clusters import Cluster, Clusters
from tests.driver import carriers

SCRIPT = "@on_configure\nset_tick_period_milliseconds 1\n@on_tick\nset_tick_period_milliseconds 0\ncall_foreign_function resolve_lua {}\n@on_foreign_function\nget_buffer_bytes 8 0 100\nsay done"
CLUSTERS = Clusters(any_host=Cluster("http://any.host"))


@pytest.fixture(autouse=True)
def wasmx(monkeypatch):
    monkeypatch.setattr(carriers, "Host", partial(Host, profile="wasmx"))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("localhost", ("%04%7f%00%00%01localhost", "%10" + "%00" * 15 + "%01localhost")),
        ("nowhere.invalid", ("%00nowhere.invalid",)),
        (f"{'a' * 70}.invalid", (f"%00{'a' * 70}.invalid",)),
    ],
    ids=["found", "not found", "no name for DNS"],
)
def test_the_address_of_a_host(run, name, shown):
    asked, found = run(SCRIPT.format(name), CLUSTERS)[-2:]
    assert asked.startswith(f"call_foreign_function(resolve_lua, {name}) = 0")
    assert found in [f'get_buffer_bytes(8, 0, 100) = 0 "{each}"' for each in shown]
