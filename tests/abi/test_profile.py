"""Profiles are data: which flags there are, and how they differ. What each flag does is tested where it is read."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from proxywasm_host.abi.profile import ENVOY, PROFILES, SPEC, WASMX, Profile

FLAGS = [
    # flag, ENVOY, SPEC, WASMX
    ("pause_holds_body", True, False, True),
    ("splice_buffers", False, True, True),
    ("log_before_done", True, False, False),
    ("await_done", False, True, False),
    ("absent_buffer_is_empty", True, False, False),
    ("inline_headers", True, False, False),
    ("absent_map_has_no_pairs", True, False, False),
    ("headers_stay", False, False, True),
    ("counter_record_adds", True, False, False),
    ("restricted_allocator", True, True, True),
    ("restricted_start", True, True, True),
    ("fail_open_spares_stream", False, True, False),
    ("nginx_phases", False, False, True),
    ("last_callout_resumes", False, False, True),
    ("dispatch_status", False, False, True),
    ("text_properties", False, False, True),
    ("misuse_fails", False, False, True),
    ("local_response_line", False, False, True),
    ("cas_zero_is_absent", False, False, True),
    ("resolves_names", False, False, True),
    ("prefixed_metrics", False, False, True),
]


@pytest.mark.parametrize(("flag", "envoy", "spec", "wasmx"), FLAGS, ids=[flag for flag, *_ in FLAGS])
def test_flag(flag, envoy, spec, wasmx):
    assert tuple(getattr(profile, flag) for profile in (ENVOY, SPEC, WASMX)) == (envoy, spec, wasmx)


def test_every_flag_is_in_the_table():
    assert {"name", *(flag for flag, *_ in FLAGS)} == {field.name for field in fields(Profile)}


def test_profiles_by_name():
    assert PROFILES == {"envoy": ENVOY, "spec": SPEC, "wasmx": WASMX}


def test_the_default_is_envoy():
    assert Profile("envoy") == ENVOY


def test_a_profile_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        ENVOY.splice_buffers = True
