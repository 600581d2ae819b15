"""Messages of a plugin server, in either protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Union

__all__ = ["MALFORMED", "Called", "Done", "Event", "PluginServerError", "Refused", "ServerProtocol", "Started"]

MALFORMED = (ValueError, TypeError, LookupError, OverflowError, RecursionError)
"""Exceptions of reading a message that is malformed or nested too deeply."""


class PluginServerError(Exception):
    """A server has sent an invalid message."""


@dataclass(frozen=True, slots=True)
class Started:
    """An instance of a plugin has been started; this is its number."""

    instance: int


@dataclass(frozen=True, slots=True)
class Called:
    """The plugin calls a function of the PDK. Text in the arguments has one character for each byte."""

    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The event has been handled."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The server refuses a request."""

    message: str


Event = Union[Started, Called, Done, Refused]


class ServerProtocol(Protocol):
    """Turns requests of one connection into bytes, and received bytes into events. One request at a time."""

    def start_instance(self, plugin: str, config: str) -> bytes:
        """Request an instance; `config` is JSON. The answer is `Started` or `Refused`."""
        ...

    def handle_event(self, instance: int, phase: str) -> bytes:
        """Request a phase. The answer is `Called`, `Done` or `Refused`."""
        ...

    def answer(self, method: str, result: Any) -> bytes:
        """Return the result of the called function. Answered like `handle_event`."""
        ...

    def answer_error(self, method: str, message: str) -> bytes:
        """Report that the called function has failed. Answered like `handle_event`."""
        ...

    def feed(self, data: bytes) -> Event | None:
        """The server's message, once all of it has arrived. Raises: PluginServerError."""
        ...
