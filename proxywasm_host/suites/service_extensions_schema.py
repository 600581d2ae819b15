"""The messages of a suite of Google's Service Extensions, for protobuf's text format.

This module has only names, numbers and types; ``plugins/test/runner.proto`` of GoogleCloudPlatform/service-extensions
explains their meaning.
"""

from __future__ import annotations

from typing import Any

from proxywasm_host.schema import Rows, described

__all__ = ["TestSuite"]

PACKAGE = "service_extensions_samples.pb"
LEVELS = ("UNDEFINED", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "CRITICAL")

MESSAGES: Rows = {
    "StringMatcher": (
        (1, "invert", "bool"),
        (2, "exact", "bytes|matcher"),
        (3, "regex", "string|matcher"),
        (4, "file", "string|matcher"),
    ),
    "Header": ((1, "key", "string"), (2, "value", "bytes")),
    "Input": ((1, "header", "Header*"), (2, "content", "bytes"), (3, "file", "string")),
    "Immediate": ((1, "http_status", "uint32?"), (2, "grpc_status", "uint32?"), (3, "details", "string?")),
    "Expectation": (
        (1, "has_header", "Header*"),
        (2, "no_header", "Header*"),
        (3, "headers", "StringMatcher*"),
        (4, "body", "StringMatcher*"),
        (5, "immediate", "Immediate"),
        (6, "log", "StringMatcher*"),
    ),
    "Invocation": ((1, "input", "Input"), (2, "result", "Expectation")),
    "Property": ((1, "path", "string"), (2, "value", "bytes")),
    "Test": (
        (1, "name", "string"),
        (2, "benchmark", "bool"),
        (10, "num_chunks", "int32|body_chunking_plan"),
        (11, "chunk_size", "int64|body_chunking_plan"),
        (12, "properties", "Property*"),
        (3, "request_headers", "Invocation"),
        (4, "request_body", "Invocation*"),
        (5, "response_headers", "Invocation"),
        (6, "response_body", "Invocation*"),
        (7, "plugin_init", "Expectation"),
        (8, "stream_init", "Expectation"),
        (9, "stream_destroy", "Expectation"),
    ),
    "Env": (
        (1, "test_path", "string"),
        (2, "wasm_path", "string"),
        (3, "config_path", "string"),
        (4, "log_level", "LogLevel"),
        (5, "log_path", "string"),
        (6, "time_secs", "uint64?"),
        (7, "num_additional_streams", "uint64?"),
        (8, "additional_stream_advance_rate", "uint64?"),
    ),
    "TestSuite": ((1, "env", "Env"), (2, "test", "Test*")),
}

TestSuite: Any = described(PACKAGE, MESSAGES, {"LogLevel": LEVELS})["TestSuite"]
"""A suite, which ``google.protobuf.text_format`` can fill."""
