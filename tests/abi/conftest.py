"""Fixtures: each marshaller that there is, in turn."""

from __future__ import annotations

import pytest

from tests.abi.fakes import MARSHALLERS, FakeGuest


@pytest.fixture(params=sorted(MARSHALLERS))
def marshaller(request, monkeypatch):
    """Which one `FakeGuest` uses."""
    monkeypatch.setattr(FakeGuest, "marshaller", request.param)
    return request.param
