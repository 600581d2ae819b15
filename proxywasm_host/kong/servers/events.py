"""Messages of a plugin server, in either protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Union

__all__ = ["MALFORMED", "Called", "Done", "Event", "PluginServerError", "Refused", "ServerProtocol", "Started"]

MALFORMED = (ValueError, TypeError, LookupError, OverflowError, RecursionError)
"""What reading a message raises that has not the form, or the depth, that it should."""


class PluginServerError(Exception):
    """A server sent a message that its protocol does not have."""


@dataclass(frozen=True, slots=True)
class Started:
    """An instance of a plugin was started with its configuration; this is its number."""

    instance: int


@dataclass(frozen=True, slots=True)
class Called:
    """The plugin calls a function of the PDK; text among the arguments has one character for each byte."""

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
    """One connection: turns requests into bytes and received bytes into events. It has one request under way."""

    def start_instance(self, plugin: str, config: str) -> bytes:
        """Ask for an instance; `config` is JSON. Answered by `Started` or `Refused`."""
        ...

    def handle_event(self, instance: int, phase: str) -> bytes:
        """Ask for a phase to be run. Answered by `Called`, `Done` or `Refused`."""
        ...

    def answer(self, method: str, result: Any) -> bytes:
        """Give the result of the called function. Answered as `handle_event`."""
        ...

    def answer_error(self, method: str, message: str) -> bytes:
        """Say that the called function has failed."""
        ...

    def feed(self, data: bytes) -> Event | None:
        """The server's message, once all of it has come. Raises: PluginServerError."""
        ...
