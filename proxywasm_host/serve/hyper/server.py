"""Runs the application on the data plane: in this process, or in several that share the listening socket."""

from __future__ import annotations

import asyncio
import logging.config
import socket
from collections.abc import Callable
from pathlib import Path

from proxywasm_host.serve.config import Settings
from proxywasm_host.serve.hyper.application import ThreadApplication, until_signal
from proxywasm_host.serve.reload import Watch
from proxywasm_host.serve.server import Alone, OneOfSeveral, log_config
from proxywasm_host.serve.source import Source

__all__ = ["alone", "one"]


class OneOfSeveralInThreads(OneOfSeveral, ThreadApplication):
    """The application in a process of its own."""


class AloneInThread(Alone, ThreadApplication):
    """The application with all that belongs to it."""


def alone(
    source: Source,
    settings: Settings,
    watch: Watch,
    listening: socket.socket,
    admin: socket.socket | None,
    ready: Callable[[], None],
) -> None:
    application = AloneInThread(source, settings, watch, admin)
    application.listening = listening
    asyncio.run(until_signal(application, ready))


def one(source: Source, settings: Settings, directory: Path, parent: int, listening: socket.socket) -> None:
    """What each of several processes runs."""
    logging.config.dictConfig(log_config(settings))
    application = OneOfSeveralInThreads(source, settings, directory, parent)
    application.listening = listening
    asyncio.run(until_signal(application, lambda: None))
