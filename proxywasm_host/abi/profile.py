"""Differences between hosts as named flags. A profile is a set of flags.

`ENVOY` behaves as Envoy. It is the default, because filters are developed against Envoy. `SPEC` follows the text of the
specification 0.2.1 where Envoy departs from it. `WASMX` behaves as ngx_wasm_module 0.6, which Kong Gateway has up to
version 3.9. ``docs/differences.md`` explains each flag.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENVOY", "PROFILES", "SPEC", "WASMX", "Profile"]


@dataclass(frozen=True, slots=True)
class Profile:
    """A set of flags. Each describes the behaviour if it is true and, after "else", the behaviour if it is false."""

    name: str

    pause_holds_body: bool = True
    """PAUSE in a callback on headers holds the body too (``StopAllIterationAndWatermark``), until the stream is
    resumed; else callbacks on the body continue while the headers wait. They always do for modules of ABI 0.2.100."""

    splice_buffers: bool = False
    """``proxy_set_buffer_bytes`` replaces a range in the middle; else only the front, the end or the whole."""

    log_before_done: bool = True
    """An HTTP stream ends with on_log, on_done, on_delete; else on_done, on_log, on_delete."""

    await_done: bool = False
    """on_done of a stream may return false to delay on_log and on_delete until ``proxy_done``; else only that of a
    plugin may."""

    absent_buffer_is_empty: bool = True
    """Outside of its callback, reading a stream's buffer answers OK without bytes, and setting it BAD_ARGUMENT; else
    both answer NOT_FOUND."""

    inline_headers: bool = True
    """Adding a header that Envoy keeps only once (``user-agent``, ``:path``, ``content-type``, …) joins the values with
    a comma; else it adds a second one."""

    absent_map_has_no_pairs: bool = True
    """``proxy_get_header_map_pairs`` of an absent map answers OK without pairs; else BAD_ARGUMENT."""

    headers_stay: bool = False
    """Headers of the request and of the response can be read, but not changed, until their stream ends (as in nginx and
    G-Core); else only until the filter lets them continue. The specification does not define it."""

    counter_record_adds: bool = True
    """``proxy_record_metric`` adds to a counter; else it answers BAD_ARGUMENT."""

    restricted_allocator: bool = True
    """While the guest allocates memory for a result, only logging and time are served; else all hostcalls are."""

    restricted_start: bool = True
    """While ``_initialize`` or ``_start`` runs, only logging and most of WASI are served; else all hostcalls are."""

    fail_open_spares_stream: bool = False
    """Under fail-open, the stream in which the guest trapped continues without the filter; else its client gets a 503,
    and only later streams skip the filter."""

    nginx_phases: bool = False
    """Filters are called in the phases of nginx, by the rules of `proxywasm_host.runtime.nginx`."""

    last_callout_resumes: bool = False
    """A paused filter resumes only with the reply to its last HTTP callout. A reply belongs to the stream that made the
    callout, and is dropped if that stream has ended. Else ``proxy_continue_stream`` resumes at once."""

    dispatch_status: bool = False
    """The reply to an HTTP callout has ``:dispatch_status``, and a failed one has nothing else; a call without
    ``:method`` or ``:path`` makes the guest fail. Else a failure is answered as by Envoy's router."""

    text_properties: bool = False
    """Properties are text: ``true``, decimal numbers, seconds; else numbers and times are binary."""

    misuse_fails: bool = False
    """A hostcall without meaning in the current callback makes the guest fail, with the reason; else it is refused with
    a status."""

    local_response_line: bool = False
    """The body of a local response gets a line break at its end, and a status outside of 100 to 999 is BAD_ARGUMENT."""

    cas_zero_is_absent: bool = False
    """``proxy_set_shared_data`` with CAS 0 sets a key only if it is absent; else it sets any key."""

    prefixed_metrics: bool = False
    """A metric is called ``pw:<filter>:<name>``, and an operation of another kind of metric makes the guest fail."""

    resolves_names: bool = False
    """The foreign function ``resolve_lua`` resolves the name of a host; else it is NOT_FOUND."""


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
    resolves_names=True,
)

PROFILES = {profile.name: profile for profile in (ENVOY, SPEC, WASMX)}
