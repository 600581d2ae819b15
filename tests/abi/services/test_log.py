"""Guests' lines in the standard library's logging."""

from __future__ import annotations

import logging

import pytest

from proxywasm_host.abi.types import LogLevel
from proxywasm_host.services import GuestLog, StandardLogging

LEVELS = {
    LogLevel.TRACE: 5,
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARN: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
    LogLevel.CRITICAL: logging.CRITICAL,
}


@pytest.mark.parametrize(("level", "standard"), LEVELS.items(), ids=lambda level: str(int(level)))
def test_levels(caplog, level, standard):
    caplog.set_level(1, "proxywasm_host.guest")
    StandardLogging().log(GuestLog("auth", level, "hello"))
    assert caplog.record_tuples == [("proxywasm_host.guest.auth", standard, "hello")]


def test_a_line_without_a_plugin(caplog):
    StandardLogging().log(GuestLog("", 4, "hello"))
    assert caplog.record_tuples == [("proxywasm_host.guest", logging.ERROR, "hello")]


def test_a_line_is_no_format(caplog):
    StandardLogging().log(GuestLog("auth", 4, "100 %s %(name)s {0}"))
    assert caplog.messages == ["100 %s %(name)s {0}"]


def test_the_level_that_guests_are_told():
    assert StandardLogging().level == LogLevel.INFO
    assert StandardLogging(LogLevel.ERROR).level == LogLevel.ERROR
