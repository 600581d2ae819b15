"""The numbers of the ABI, as the specification and the SDKs have them."""

from __future__ import annotations

import pytest

from proxywasm_host.abi import types
from proxywasm_host.abi.types import AbiVersion

NUMBERS = {
    "Status": {
        "OK": 0,
        "NOT_FOUND": 1,
        "BAD_ARGUMENT": 2,
        "SERIALIZATION_FAILURE": 3,
        "PARSE_FAILURE": 4,
        "BAD_EXPRESSION": 5,
        "INVALID_MEMORY_ACCESS": 6,
        "EMPTY": 7,
        "CAS_MISMATCH": 8,
        "RESULT_MISMATCH": 9,
        "INTERNAL_FAILURE": 10,
        "BROKEN_CONNECTION": 11,
        "UNIMPLEMENTED": 12,
    },
    "LogLevel": {"TRACE": 0, "DEBUG": 1, "INFO": 2, "WARN": 3, "ERROR": 4, "CRITICAL": 5},
    "MapType": {
        "REQUEST_HEADERS": 0,
        "REQUEST_TRAILERS": 1,
        "RESPONSE_HEADERS": 2,
        "RESPONSE_TRAILERS": 3,
        "GRPC_RECEIVE_INITIAL_METADATA": 4,
        "GRPC_RECEIVE_TRAILING_METADATA": 5,
        "HTTP_CALL_RESPONSE_HEADERS": 6,
        "HTTP_CALL_RESPONSE_TRAILERS": 7,
    },
    "BufferType": {
        "HTTP_REQUEST_BODY": 0,
        "HTTP_RESPONSE_BODY": 1,
        "DOWNSTREAM_DATA": 2,
        "UPSTREAM_DATA": 3,
        "HTTP_CALL_RESPONSE_BODY": 4,
        "GRPC_RECEIVE_BUFFER": 5,
        "VM_CONFIGURATION": 6,
        "PLUGIN_CONFIGURATION": 7,
        "CALL_DATA": 8,
        "REDIS_CALL_RESPONSE": 9,
    },
    "StreamType": {"REQUEST": 0, "RESPONSE": 1, "DOWNSTREAM": 2, "UPSTREAM": 3},
    "PeerType": {"UNKNOWN": 0, "LOCAL": 1, "REMOTE": 2},
    "MetricType": {"COUNTER": 0, "GAUGE": 1, "HISTOGRAM": 2},
    "Action": {"CONTINUE": 0, "PAUSE": 1},
    "HeadersAction": {
        "CONTINUE": 0,
        "STOP_ITERATION": 1,
        "CONTINUE_AND_END_STREAM": 2,
        "STOP_ALL_ITERATION_AND_BUFFER": 3,
        "STOP_ALL_ITERATION_AND_WATERMARK": 4,
    },
    "DataAction": {
        "CONTINUE": 0,
        "STOP_ITERATION_AND_BUFFER": 1,
        "STOP_ITERATION_AND_WATERMARK": 2,
        "STOP_ITERATION_NO_BUFFER": 3,
    },
    "WasiErrno": {
        "SUCCESS": 0,
        "BADF": 8,
        "NOTDIR": 20,
        "FAULT": 21,
        "INVAL": 28,
        "NOENT": 44,
        "ENOSYS": 52,
        "NOTSUP": 58,
        "NOTCAPABLE": 76,
    },
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name):
    assert {member.name: member.value for member in getattr(types, name)} == NUMBERS[name]


def test_every_enumeration_is_in_the_table():
    assert {*NUMBERS, "AbiVersion"} == set(types.__all__)


@pytest.mark.parametrize(
    ("version", "text", "marker"),
    [
        (AbiVersion.V0_1_0, "0.1.0", "proxy_abi_version_0_1_0"),
        (AbiVersion.V0_2_0, "0.2.0", "proxy_abi_version_0_2_0"),
        (AbiVersion.V0_2_1, "0.2.1", "proxy_abi_version_0_2_1"),
        (AbiVersion.V0_2_100, "0.2.100", "proxy_abi_version_0_2_100"),
    ],
)
def test_versions(version, text, marker):
    assert str(version) == text
    assert version.marker == marker


def test_versions_are_in_their_order():
    assert [str(version) for version in sorted(AbiVersion)] == ["0.1.0", "0.2.0", "0.2.1", "0.2.100"]
