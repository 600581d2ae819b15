"""Differences between hosts as named flags; a profile is a set of them.

`ENVOY` is what Envoy does and the default, for filters are developed against it; `SPEC` follows the text of the
specification 0.2.1 where Envoy departs from it. ``docs/differences.md`` explains each flag.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENVOY", "PROFILES", "SPEC", "Profile"]


@dataclass(frozen=True, slots=True)
class Profile:
    """A set of flags; each says what happens when it is true."""

    name: str

    pause_holds_body: bool = True
    """PAUSE from a callback on headers holds the body too (``StopAllIterationAndWatermark``), until the stream is
    resumed; else body callbacks go on while the headers wait. Modules of ABI 0.2.100 always have the latter."""

    splice_buffers: bool = False
    """``proxy_set_buffer_bytes`` replaces a range in the middle; else only the front, the end or the whole."""

    log_before_done: bool = True
    """An HTTP stream ends with on_log, on_done, on_delete; else on_done, on_log, on_delete."""

    await_done: bool = False
    """on_done of a stream may return false to hold on_log and on_delete back until ``proxy_done``; else only that of
    a plugin may."""

    absent_buffer_is_empty: bool = True
    """Reading a stream's buffer where there is none answers OK and nothing, setting it BAD_ARGUMENT; else NOT_FOUND.
    """

    inline_headers: bool = True
    """To add a header of which Envoy keeps one only (``user-agent``, ``:path``, ``content-type``, …) joins the values
    with a comma; else a second one is added."""

    absent_map_has_no_pairs: bool = True
    """``proxy_get_header_map_pairs`` of a map that is not there answers OK and nothing; else BAD_ARGUMENT."""

    headers_stay: bool = False
    """Headers of the request and of the response can be read, and no more be changed, until their stream ends (as in
    nginx and G-Core); else until the filter has let them go on. The specification does not say."""

    counter_record_adds: bool = True
    """``proxy_record_metric`` adds to a counter; else it is BAD_ARGUMENT."""

    restricted_allocator: bool = True
    """While the guest allocates for a result, it may only log and tell the time; else any hostcall is served."""

    restricted_start: bool = True
    """While ``_initialize`` or ``_start`` runs, only logging, time, environment and random numbers are served."""

    fail_open_spares_stream: bool = False
    """Under fail-open, the stream in which the guest trapped goes on without the filter; else it is answered 503,
    and only later streams skip the filter."""


ENVOY = Profile("envoy")
SPEC = Profile(
    "spec",
    pause_holds_body=False,
    splice_buffers=True,
    log_before_done=False,
    await_done=True,
    absent_buffer_is_empty=False,
    inline_headers=False,
    absent_map_has_no_pairs=False,
    counter_record_adds=False,
    fail_open_spares_stream=True,
)

PROFILES = {profile.name: profile for profile in (ENVOY, SPEC)}
