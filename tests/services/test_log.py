"""Guests' lines in the standard library's logging."""

from __future__ import annotations

import logging

import pytest

from proxywasm_host.abi.types import LogLevel
from proxywasm_host.services import GuestLog, StandardLogging
from proxywasm_host.services.log import printable

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


FORGED = {
    "ERROR:root: all is well\nERROR:root: forged": r"ERROR:root: all is well\nERROR:root: forged",
    "\r\x1b[2K\x1b[31mred\x07": r"\r\x1b[2K\x1b[31mred\x07",
    "\x00\x08\x0b\x0c\x7f": r"\x00\x08\x0b\x0c\x7f",
    "C1: \x85\x9b1m": r"C1: \x85\x9b1m",
    "lines: \u2028\u2029": r"lines: \u2028\u2029",
    "user \u202etxt.exe\u202c \u2066a\u2069 \u200f\u061c": r"user \u202etxt.exe\u202c \u2066a\u2069 \u200f\u061c",
    "half a pair: \udcff": r"half a pair: \udcff",
}


@pytest.mark.parametrize(("text", "told"), FORGED.items(), ids=list(FORGED.values()))
def test_a_guest_cannot_forge_a_line(caplog, text, told):
    StandardLogging().log(GuestLog("auth", 4, text))
    assert caplog.messages == [told]


@pytest.mark.parametrize("text", ["a\tb", "grüße, 世界 😀", r"a\n stays", "e\u0301 \u200d \ufe0f"])
def test_what_is_harmless_stays(text):
    assert printable(text) == text
