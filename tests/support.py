"""What several tests need: our filters, requests to send through them, sinks that remember."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import wasmtime

from proxywasm_host.abi.marshal import Call
from proxywasm_host.runtime.failure import describe
from proxywasm_host.services import GuestLog

FILTERS = Path(__file__).parent / "filters"

REQUEST = [
    (b":authority", b"example.com"),
    (b":path", b"/a?b=c"),
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b"user-agent", b"test"),
]
RESPONSE = [(b":status", b"200"), (b"server", b"up")]


@lru_cache(None)
def wat(text: str) -> bytes:
    """WebAssembly text as a module's bytes."""
    return bytes(wasmtime.wat2wasm(text))


def code(name: str) -> bytes:
    """A filter of ours: ``rust/headers``, ``c/probe_0_2_1``, …"""
    return (FILTERS / f"{name}.wasm").read_bytes()


class Lines:
    """A log sink that remembers."""

    level = 0

    def __init__(self) -> None:
        self.lines: list[GuestLog] = []

    def log(self, line: GuestLog) -> None:
        self.lines.append(line)

    @property
    def messages(self) -> list[str]:
        return [line.message for line in self.lines]

    def take(self) -> list[str]:
        """The messages since it was last asked."""
        messages = self.messages
        self.lines.clear()
        return messages


class Trace:
    """A listener that remembers: ``callbacks`` as (plugin, name, arguments, result), ``hostcalls`` as text."""

    def __init__(self) -> None:
        self.callbacks: list[tuple[str, str, tuple[int, ...], int | None]] = []
        self.hostcalls: list[str] = []
        self.events: list[str] = []

    def callback(self, context, row, args) -> None:
        self.events.append(f"{context.name}: {row.name}{args[1:]}")

    def returned(self, context, row, result, *, failed) -> None:
        self.callbacks.append((context.name, row.name, (), None if failed else result))

    def hostcall(self, context, call: Call) -> None:
        self.hostcalls.append(describe(call))

    def take(self) -> list[str]:
        """The callbacks since it was last asked, as ``plugin: name(arguments without the context)``."""
        events = list(self.events)
        self.events.clear()
        return events


@contextmanager
def held_by_another_thread(lock) -> Iterator[None]:
    """While another thread holds a lock."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            assert release.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(20)
    try:
        yield
    finally:
        release.set()
        thread.join()
