"""Profiles of production hosts for tests: their behaviour, and the hostcalls and properties that they lack.

Sources: `envoy`, `spec` and `wasmx`: `proxywasm_host.abi.profile`. `higress`: Envoy, with Higress's ABI 0.2.100.
`gcp`: the README of plugins for Google Cloud's Service Extensions. The clock stands still in each stream,
``plugin_root_id`` is the only property, and callouts, shared data, queues, metrics and ticks do not exist. `gcore`: the
permissions for properties of FastEdge, and headers that can be read until the stream ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from proxywasm_host.abi.profile import ENVOY, SPEC, WASMX, Profile
from proxywasm_host.abi.table import CALLBACKS, HOSTCALLS, WASI
from proxywasm_host.errors import not_among

__all__ = ["HOST_PROFILES", "HostProfile", "host_profile"]


@dataclass(frozen=True)
class HostProfile:
    """The profile of a production host, for tests."""

    name: str
    profile: Profile
    hostcalls: frozenset[str] | None = None
    """The available hostcalls, or ``None`` for all. Others are refused."""
    properties: frozenset[str] | None = None
    """The readable properties, by the beginning of their dotted names, or ``None`` for all."""
    frozen_clock: bool = False
    """Whether the clock of guests stands still during a stream."""

    @property
    def capabilities(self) -> frozenset[str] | None:
        """The allowed hostcalls and callbacks, for `FilterConfig.capabilities`."""
        if self.hostcalls is None:
            return None
        return self.hostcalls | {row.name for rows in (CALLBACKS, WASI) for row in rows}

    def shows(self, property: str) -> bool:
        """Whether a filter may read this property."""
        shown = self.properties
        return shown is None or any(property == name or property.startswith(f"{name}.") for name in shown)


def _hostcalls(*words: str) -> Iterator[str]:
    """The hostcalls whose names contain one of these words."""
    return (row.name for row in HOSTCALLS if any(word in row.name for word in words))


GCP_HOSTCALLS = frozenset(
    _hostcalls(
        "header_map", "buffer", "_log", "get_current_time", "get_property", "send_local_response", "continue_", "close_"
    )
) | {"proxy_done", "proxy_set_effective_context", "proxy_get_log_level", "proxy_get_status"}
GCORE_PROPERTIES = frozenset(
    [
        "request.url",
        "request.host",
        "request.path",
        "request.scheme",
        "request.extension",
        "request.query",
        "request.x_real_ip",
        "request.country",
        "request.city",
        "request.asn",
        "request.geo.lat",
        "request.geo.long",
        "request.region",
        "request.continent",
        "request.country.name",
        "response.status",
        "plugin_root_id",
    ]
)

HOST_PROFILES = {
    profile.name: profile
    for profile in (
        HostProfile("envoy", ENVOY),
        HostProfile("spec", SPEC),
        HostProfile("higress", replace(ENVOY, name="higress")),
        HostProfile("gcp", replace(ENVOY, name="gcp"), GCP_HOSTCALLS, frozenset({"plugin_root_id"}), frozen_clock=True),
        HostProfile("wasmx", WASMX),
        HostProfile("gcore", replace(ENVOY, name="gcore", headers_stay=True), None, GCORE_PROPERTIES),
    )
}


def host_profile(profile: str | Profile | HostProfile) -> HostProfile:
    """A profile from its name or from a profile. Raises: LookupError."""
    if isinstance(profile, HostProfile):
        return profile
    if isinstance(profile, Profile):
        return HostProfile(profile.name, profile)
    if profile not in HOST_PROFILES:
        raise LookupError(not_among("profile", profile, HOST_PROFILES))
    return HOST_PROFILES[profile]
