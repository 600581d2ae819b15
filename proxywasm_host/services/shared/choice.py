"""Parses which processes share state.

    ================================  =================================================================
    ``memory``                        this process alone
    ``processes``                     processes of one process group on this machine: the workers of
                                      gunicorn, uvicorn, ``proxywasm serve``, …
    ``processes:NAME``                processes of this user with the same name
    ``processes:/PATH``               processes with the same directory
    ``redis[s]://…``, ``unix://…``    all processes with this database of Redis or Valkey
    ================================  =================================================================

Options follow a question mark: ``ttl``, the seconds after which shared data expires unless it is set again; for Redis
also ``timeout`` (seconds), ``prefix`` (of its keys) and ``node`` (metrics are summed up for each; by default the
machine's name). Other options of a URL are those of redis-py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import Any
from urllib.parse import parse_qsl, urlencode

from proxywasm_host.services import InMemoryMetrics, InMemorySharedData, InMemorySharedQueues, Services
from proxywasm_host.services.shared.bundle import Shared
from proxywasm_host.services.zones import ZonedSharedQueues, Zones

__all__ = ["check_shared", "open_shared", "with_shared"]

WITHOUT = Zones()
FORMS = "write it as memory, processes, processes:NAME, processes:/PATH or redis://HOST:PORT/DATABASE"
SECONDS = ("ttl", "timeout")
OF_REDIS = (*SECONDS, "prefix", "node")
URL = re.compile(r"(redis|rediss|unix)://.+")
PROCESSES = re.compile(r"processes(?::(/.*|[A-Za-z0-9][A-Za-z0-9_.-]{0,63}))?")


def check_shared(choice: object) -> None:
    """Check a choice of the processes that share state. Raises: TypeError, ValueError."""
    _opener(choice)


def open_shared(choice: str, zones: Zones = WITHOUT) -> Shared:
    """The services of a choice. They use no server or directory until the first hostcall needs one.

    `zones` are those of shared data and queues. Raises: TypeError, ValueError; ModuleNotFoundError, if the extra that
    they need is not installed.
    """
    return _opener(choice)(zones)


def with_shared(services: Services, shared: Shared) -> Services:
    """A copy of the services with the shared data, shared queues and metrics of `shared`."""
    return replace(services, shared_data=shared.data, shared_queues=shared.queues, metrics=shared.metrics)


def _opener(choice: object) -> Callable[[Zones], Shared]:
    if not isinstance(choice, str):
        raise TypeError(f"shared is text, not {choice!r}: {FORMS}")
    base, _, query = choice.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = OF_REDIS if URL.fullmatch(base) else ("ttl",)
    said: dict[str, Any] = {name: options.pop(name) for name in known if name in options}
    for name in SECONDS:
        if name in said:
            said[name] = _seconds(name, said[name])
    if URL.fullmatch(base):
        return partial(_redis, said, base + ("?" + urlencode(options) if options else ""))
    if options:
        raise ValueError(f"shared: {next(iter(options))!r} is not an option of {base!r}, which has only ttl=SECONDS")
    if base == "memory":
        return partial(_memory, said)
    found = PROCESSES.fullmatch(base)
    if found:
        return partial(_processes, said, found[1] or "")
    raise ValueError(f"shared cannot be {choice!r}: {FORMS}")


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and isfinite(value)):
        raise ValueError(f"shared: {name} is a number of seconds, not {text!r}: write {name}=60")
    return value


def _memory(said: dict[str, Any], zones: Zones) -> Shared:
    data = zones.in_memory() if zones.data else InMemorySharedData(**said)
    queues = ZonedSharedQueues(zones.queues) if zones.queues else InMemorySharedQueues()
    return Shared(data, queues, InMemoryMetrics())


def _processes(said: dict[str, Any], name: str, zones: Zones) -> Shared:
    from proxywasm_host.services.shared import processes  # noqa: PLC0415 - the extra may be missing
    from proxywasm_host.services.shared.directory import directory, path_of  # noqa: PLC0415
    from proxywasm_host.services.shared.zones import ProcessZones, ZonedProcessQueues  # noqa: PLC0415

    place = directory(path_of(name))
    data = ProcessZones(place, zones) if zones.data else processes.ProcessSharedData(place, **said)
    queues = ZonedProcessQueues(place, zones) if zones.queues else processes.ProcessSharedQueues(place)
    return processes.opened(place, data, queues)


def _redis(said: dict[str, Any], url: str, zones: Zones) -> Shared:
    from proxywasm_host.services.shared import redis  # noqa: PLC0415 - the extra may be missing

    if zones:
        raise ValueError("Redis has no zones, which are memory of one machine: leave out shm_kv and shm_queue")
    return redis.opened(url, **said)
