"""What a plugin server says, whatever its protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Union

__all__ = ["Called", "Done", "Event", "PluginServerError", "Refused", "ServerProtocol", "Started"]


class PluginServerError(Exception):
    """What a server sends that its protocol does not know."""


@dataclass(frozen=True, slots=True)
class Started:
    """An instance of a plugin has its configuration; it is known by this number."""

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
    """The server cannot do what it was asked."""

    message: str


Event = Union[Started, Called, Done, Refused]


class ServerProtocol(Protocol):
    """One connection: what is asked becomes bytes, and what comes becomes an event. One request is under way."""

    def start_instance(self, plugin: str, config: str) -> bytes:
        """Ask for an instance; `config` is JSON. Answered by `Started` or `Refused`."""
        ...

    def handle_event(self, instance: int, phase: str) -> bytes:
        """Have a phase run. Answered by `Called`, `Done` or `Refused`."""
        ...

    def answer(self, method: str, result: Any) -> bytes:
        """The result of the function that was called. Answered as `handle_event`."""
        ...

    def answer_error(self, method: str, message: str) -> bytes:
        """The function has failed."""
        ...

    def feed(self, data: bytes) -> Event | None:
        """What the server has said, once all of it has come. Raises: PluginServerError."""
        ...
