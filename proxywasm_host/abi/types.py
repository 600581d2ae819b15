"""The numbers of the ABI, under the names of its specification and its SDKs.

Source: Proxy-Wasm specification 0.2.1; members that its text omits come from Envoy's host and from SDKs.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "AbiVersion",
    "Action",
    "BufferType",
    "DataAction",
    "HeadersAction",
    "LogLevel",
    "MapType",
    "MetricType",
    "PeerType",
    "Status",
    "StreamType",
    "WasiErrno",
]


class AbiVersion(IntEnum):
    """Versions of the ABI, in order. A module exports a marker with the version in its name."""

    V0_1_0 = 100
    V0_2_0 = 200
    V0_2_1 = 201
    V0_2_100 = 300
    """Higress's extension of 0.2.1."""

    @property
    def marker(self) -> str:
        """The name of the export that marks a module as one of this version."""
        return f"proxy_abi_version_{self.name[1:]}"

    def __str__(self) -> str:
        return self.name[1:].replace("_", ".")


class Status(IntEnum):
    """The answer of a hostcall."""

    OK = 0
    NOT_FOUND = 1
    BAD_ARGUMENT = 2
    SERIALIZATION_FAILURE = 3
    PARSE_FAILURE = 4
    BAD_EXPRESSION = 5
    INVALID_MEMORY_ACCESS = 6
    EMPTY = 7
    CAS_MISMATCH = 8
    RESULT_MISMATCH = 9
    INTERNAL_FAILURE = 10
    BROKEN_CONNECTION = 11
    UNIMPLEMENTED = 12


class LogLevel(IntEnum):
    """Severity of a log line."""

    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    CRITICAL = 5


class MapType(IntEnum):
    """Selects a header map."""

    REQUEST_HEADERS = 0
    REQUEST_TRAILERS = 1
    RESPONSE_HEADERS = 2
    RESPONSE_TRAILERS = 3
    GRPC_RECEIVE_INITIAL_METADATA = 4
    GRPC_RECEIVE_TRAILING_METADATA = 5
    HTTP_CALL_RESPONSE_HEADERS = 6
    HTTP_CALL_RESPONSE_TRAILERS = 7


class BufferType(IntEnum):
    """Selects a buffer."""

    HTTP_REQUEST_BODY = 0
    HTTP_RESPONSE_BODY = 1
    DOWNSTREAM_DATA = 2
    UPSTREAM_DATA = 3
    HTTP_CALL_RESPONSE_BODY = 4
    GRPC_RECEIVE_BUFFER = 5
    VM_CONFIGURATION = 6
    PLUGIN_CONFIGURATION = 7
    CALL_DATA = 8
    """Arguments of a foreign function."""
    REDIS_CALL_RESPONSE = 9
    """Higress, from ABI 0.2.100 on."""


class StreamType(IntEnum):
    """Selects the direction of ``proxy_continue_stream`` and ``proxy_close_stream``."""

    REQUEST = 0
    RESPONSE = 1
    DOWNSTREAM = 2
    UPSTREAM = 3


class PeerType(IntEnum):
    """The side that closed a connection."""

    UNKNOWN = 0
    LOCAL = 1
    REMOTE = 2


class MetricType(IntEnum):
    """Kind of a metric."""

    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


class Action(IntEnum):
    """The results of stream callbacks in the specification; here those of callbacks on trailers, metadata and TCP."""

    CONTINUE = 0
    PAUSE = 1


class HeadersAction(IntEnum):
    """The results of a callback on headers (Envoy's ``FilterHeadersStatus``)."""

    CONTINUE = 0
    STOP_ITERATION = 1
    CONTINUE_AND_END_STREAM = 2
    STOP_ALL_ITERATION_AND_BUFFER = 3
    STOP_ALL_ITERATION_AND_WATERMARK = 4


class DataAction(IntEnum):
    """The results of a callback on a body (Envoy's ``FilterDataStatus``)."""

    CONTINUE = 0
    STOP_ITERATION_AND_BUFFER = 1
    STOP_ITERATION_AND_WATERMARK = 2
    STOP_ITERATION_NO_BUFFER = 3


class WasiErrno(IntEnum):
    """The WASI error numbers that the emulation uses."""

    SUCCESS = 0
    BADF = 8
    FAULT = 21
    INVAL = 28
    NOENT = 44
    ENOSYS = 52
    NOTDIR = 20
    """The number that Envoy's host returns; WASI's own ENOTDIR is 54."""
    NOTSUP = 58
    NOTCAPABLE = 76
