"""Writes our own form in the form of another host, and lists the settings that it does not have.

Each form has a module, as for readers; `base` has the shared code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxywasm_host.configuration.writers.base import Writer
from proxywasm_host.configuration.writers.envoy import EnvoyWriter
from proxywasm_host.configuration.writers.kubernetes import GatewayWriter, HigressWriter, IstioWriter
from proxywasm_host.configuration.writers.nginx import NginxWriter
from proxywasm_host.configuration.writers.own import OwnWriter

__all__ = ["WRITERS", "Writer"]

WRITERS: dict[str, Callable[[Mapping[str, Any]], Writer]] = {
    "own": OwnWriter,
    "envoy": EnvoyWriter,
    "istio": IstioWriter,
    "higress": HigressWriter,
    "gateway": GatewayWriter,
    "nginx": NginxWriter,
}
