"""Differences between hosts as named flags; a profile is a set of them.

`ENVOY` is what Envoy does and the default, for filters are developed against it; `SPEC` follows the text of the
specification 0.2.1 where Envoy departs from it; `WASMX` is what ngx_wasm_module 0.6 does, and with it Kong Gateway up
to 3.9. ``docs/differences.md`` explains each flag.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENVOY", "PROFILES", "SPEC", "WASMX", "Profile"]


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

    nginx_phases: bool = False
    """Filters are called when nginx has something for them; the rules are those of `proxywasm_host.runtime.nginx`."""

    last_callout_resumes: bool = False
    """The reply to the last HTTP callout of a paused filter resumes it, and nothing else does before; a reply is for
    the stream that made the callout, and goes with it. Else ``proxy_continue_stream`` resumes, at once."""

    dispatch_status: bool = False
    """The reply to an HTTP callout has ``:dispatch_status``, and one that failed has nothing else; a call without
    ``:method`` or ``:path`` fails the guest. Else a failure is answered as by Envoy's router."""

    text_properties: bool = False
    """Properties are text: ``true``, decimal numbers, seconds; else numbers and times are binary."""

    misuse_fails: bool = False
    """A hostcall that makes no sense in its callback fails the guest, with the reason; else it is refused with a
    status."""

    local_response_line: bool = False
    """A line break is put at the end of the body of a local response, and its status is 100 to 999; else BAD_ARGUMENT.
    """

    cas_zero_is_absent: bool = False
    """``proxy_set_shared_data`` with CAS 0 sets only what is absent; else whatever there is."""

    prefixed_metrics: bool = False
    """A metric is called ``pw:<filter>:<name>``, and each kind has its own operations; another fails the guest."""


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

WASMX = Profile(
    "wasmx",
    splice_buffers=True,
    log_before_done=False,
    absent_buffer_is_empty=False,
    inline_headers=False,
    absent_map_has_no_pairs=False,
    headers_stay=True,
    counter_record_adds=False,
    nginx_phases=True,
    last_callout_resumes=True,
    dispatch_status=True,
    text_properties=True,
    misuse_fails=True,
    local_response_line=True,
    cas_zero_is_absent=True,
    prefixed_metrics=True,
)

PROFILES = {profile.name: profile for profile in (ENVOY, SPEC, WASMX)}
