"""What Higress offers beyond the ABI that it shares with Envoy, asked by our own scripted filter."""

from __future__ import annotations

from textwrap import dedent

import pytest

from proxywasm_host.runtime.effects import RedisCall

VERSION = "0_2_100"


@pytest.fixture
def scripted(probe):
    return lambda script, **options: probe(dedent(script), VERSION, **options)


def test_options_of_a_redis_cluster_stand_behind_its_name(scripted, exchange):
    plugin = scripted(
        """
        @on_configure
        redis_init outbound|80||redis.static?db=2&buffer_flush_timeout=3 user secret 500
        @on_request_headers
        redis_call outbound|80||redis.static PING
        return 1
        """
    )

    call = exchange(plugin).request("/").callout

    assert call == RedisCall(
        plugin,
        call.token,
        "outbound|80||redis.static",
        b"PING",
        b"user",
        b"secret",
        500,
        {"db": "2", "buffer_flush_timeout": "3"},
    )


@pytest.mark.parametrize("name", ["unknown", "unknown?db=2"])
def test_a_redis_cluster_must_be_known(scripted, log, name):
    scripted(f"@on_configure\nredis_init {name} user secret 500\nredis_call {name} PING")

    assert log.take() == [f"redis_init({name}, user, secret, 500) = 2", f"redis_call({name}, PING) = 2"]


def test_a_redis_call_needs_an_initialised_cluster(scripted, log):
    scripted("@on_configure\nredis_call outbound|80||redis.static PING")

    assert log.take() == ["redis_call(outbound|80||redis.static, PING) = 2"]


def test_a_guest_is_told_which_lines_are_wanted(scripted, log):
    log.level = 3

    scripted('@on_configure\ncall_foreign_function get_log_level ""')

    assert log.take() == ['call_foreign_function(get_log_level, "") = 0 "%03%00%00%00"']


def test_a_bound_on_concurrent_requests_is_accepted(scripted, log):
    scripted("@on_configure\ncall_foreign_function set_global_max_requests_per_io_cycle %14%00%00%00%00%00%00%00")

    assert [line.rpartition(" = ")[2] for line in log.take()] == ['0 ""']


def test_a_filter_can_raise_the_limit_of_what_is_buffered(scripted, exchange):
    buffer = "@on_request_body\nreturn 1\n@on_request_body/eos\nreturn 0\n"
    limited = scripted(buffer, name="limited")
    raised = scripted(f"@on_request_headers\nset_property set_decoder_buffer_limit 64\n{buffer}", name="raised")

    refused = exchange(limited, buffer_limit=16).request("/", b"x" * 20, end=False)
    accepted = exchange(raised, buffer_limit=16).request("/", b"x" * 20, end=False)
    accepted.part()
    too_much = exchange(raised, buffer_limit=16).request("/", b"x" * 65, end=False)

    assert refused.client.status == 413
    assert accepted.stream.local is None
    assert too_much.client.status == 413


def test_both_directions_have_one_limit(scripted, exchange):
    plugin = scripted(
        """
        @on_request_headers
        set_property set_encoder_buffer_limit 64
        @on_response_body
        return 1
        @on_response_body/eos
        return 0
        """
    )
    through = exchange(plugin, buffer_limit=16).request("/")

    through.respond([b"x" * 20, b"y"])

    assert through.client.body == b"x" * 20 + b"y"


@pytest.mark.parametrize("limit", ["", "many", "-1", "4294967296"])
def test_what_is_no_limit_changes_none(scripted, exchange, log, limit):
    plugin = scripted(
        f"@on_request_headers\nset_property set_decoder_buffer_limit {limit or chr(34) * 2}\n@on_request_body\nreturn 1"
    )

    through = exchange(plugin, buffer_limit=16).request("/", b"x" * 20, end=False)

    assert log.messages[-1].endswith(" = 0")
    assert through.client.status == 413


def test_a_filter_can_ask_for_its_route_to_be_kept(scripted, exchange):
    keeps = scripted(
        """
        @on_request_headers
        set_property clear_route_cache off
        call_foreign_function clear_route_cache ""
        """,
        name="keeps",
    )
    clears = scripted('@on_request_headers\ncall_foreign_function clear_route_cache ""', name="clears")

    assert not exchange(keeps).request("/").rerouted
    assert exchange(keeps, clears).request("/").rerouted, "it speaks for itself alone"


def test_tags_for_the_trace_span_are_kept_apart_from_properties(scripted, exchange, log):
    plugin = scripted("@on_request_headers\nset_property trace_span_tag.model qwen\nget_property trace_span_tag.model")

    through = exchange(plugin).request("/")

    assert through.stream.span_tags == {"model": b"qwen"}
    assert log.take() == [
        "set_property(trace_span_tag.model, qwen) = 0",
        "get_property(trace_span_tag.model) = 1",
    ]


# body (1) "hello", endstream (2) true
MESSAGE = "%0a%05hello%10%01"


def test_data_injected_while_the_headers_wait_lets_them_go_first(scripted, exchange):
    plugin = scripted(
        f"""
        @on_response_headers
        replace_header_map_value 2 :status 201
        call_foreign_function inject_encoded_data_to_filter_chain_on_header {MESSAGE}
        return 4
        """
    )
    through = exchange(plugin).request("/")

    through.respond()

    assert through.client.status == 201
    assert through.client.body == b"hello"
    assert through.client.ended


def test_injected_data_passes_the_filters_behind(scripted, exchange, log):
    first = scripted(
        "@on_response_headers\nsay first\n@on_response_body\nget_buffer_bytes 1 0 99\nset_buffer_bytes 1 0 99 bye",
        name="first",
    )
    second = scripted(
        """
        @on_response_headers
        inject_encoded_data_to_filter_chain hello 1
        return 3
        """,
        name="second",
    )
    through = exchange(first, second).request("/")

    through.respond([b"of upstream"])

    assert log.take() == [
        "inject_encoded_data_to_filter_chain(hello, 1) = 0",
        "first",
        'get_buffer_bytes(1, 0, 99) = 0 "hello"',
        "set_buffer_bytes(1, 0, 99, bye) = 0",
    ]
    assert through.client.body == b"bye"


def test_headers_go_on_once_if_the_filter_goes_on_as_well(scripted, exchange, log):
    first = scripted("@on_response_headers\nsay first", name="first")
    second = scripted("@on_response_headers\ninject_encoded_data_to_filter_chain a 0", name="second")
    through = exchange(first, second).request("/")

    through.respond([b"b", b"c"])

    assert log.take() == ["inject_encoded_data_to_filter_chain(a, 0) = 0", "first"]
    assert through.client.chunks == [b"a", b"b", b"c"]


def test_a_damaged_message_is_not_injected(scripted, exchange, log):
    plugin = scripted(
        """
        @on_response_headers
        call_foreign_function inject_encoded_data_to_filter_chain_on_header %0a%ffhello
        call_foreign_function inject_encoded_data_to_filter_chain_on_header %08%01
        """
    )

    through = exchange(plugin).request("/").respond([b"of upstream"])

    assert [line.rpartition(" = ")[2] for line in log.take()] == ["4", "4"]
    assert through.client.body == b"of upstream"


def test_a_clock_for_tests_suits_the_runtime_of_go(clock):
    assert clock.monotonic_ns() > 0, "it aborts at 0"
