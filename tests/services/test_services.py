"""The bundle of services: what a host gets that says nothing."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from proxywasm_host import services as module
from proxywasm_host.services import Services


def test_defaults():
    services = Services()
    assert "upstream" not in services.clusters
    assert services.upstream_hosts() == {}
    assert sorted(services.foreign_functions) == ["compress", "sign", "uncompress", "verify_signature"]
    assert len(services.random(16)) == 16
    assert services.random(16) != services.random(16)
    assert services.log.level == 2


def test_two_share_nothing():
    one, other = Services(), Services()
    one.foreign_functions["mine"] = bytes
    one.shared_data.set("vm", b"k", b"v")
    one.metrics.define(0, "m")
    one.shared_queues.register("vm", b"q", print)
    assert "mine" not in other.foreign_functions
    assert other.shared_data.get("vm", b"k") is None
    assert other.metrics.values == {}
    assert other.shared_queues.resolve("vm", b"q") is None


def test_they_cannot_be_exchanged():
    with pytest.raises(FrozenInstanceError):
        Services().clusters = {"upstream"}


def test_all_that_is_promised_is_there():
    assert all(hasattr(module, name) for name in module.__all__)
