"""What Higress offers beyond the ABI that it shares with Envoy, asked by our own scripted filter."""

from __future__ import annotations


def test_a_clock_for_tests_suits_the_runtime_of_go(clock):
    assert clock.monotonic_ns() > 0, "it aborts at 0"
