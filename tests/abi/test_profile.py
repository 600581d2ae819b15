"""Profiles are data: which flags there are, and how the two differ. What each flag does is tested where it is read."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from proxywasm_host.abi.profile import ENVOY, PROFILES, SPEC, Profile

FLAGS = [
    # flag, ENVOY, SPEC
    ("pause_holds_body", True, False),
    ("splice_buffers", False, True),
    ("log_before_done", True, False),
    ("await_done", False, True),
    ("absent_buffer_is_empty", True, False),
    ("inline_headers", True, False),
    ("absent_map_has_no_pairs", True, False),
    ("headers_stay", False, False),
    ("counter_record_adds", True, False),
    ("restricted_allocator", True, True),
    ("restricted_start", True, True),
    ("fail_open_spares_stream", False, True),
]


@pytest.mark.parametrize(("flag", "envoy", "spec"), FLAGS, ids=[flag for flag, _, _ in FLAGS])
def test_flag(flag, envoy, spec):
    assert (getattr(ENVOY, flag), getattr(SPEC, flag)) == (envoy, spec)


def test_every_flag_is_in_the_table():
    assert {"name", *(flag for flag, _, _ in FLAGS)} == {field.name for field in fields(Profile)}


def test_profiles_by_name():
    assert PROFILES == {"envoy": ENVOY, "spec": SPEC}


def test_the_default_is_envoy():
    assert Profile("envoy") == ENVOY


def test_a_profile_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        ENVOY.splice_buffers = True
