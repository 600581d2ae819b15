"""The messages between Envoy and its external servers, with the fields that we read and write.

Source: ``envoy/service/ext_proc/v3/external_processor.proto`` and ``envoy/service/auth/v3/external_auth.proto`` of
Envoy's API, with their imports; ``grpc/health/v1/health.proto``. Other fields of received messages are skipped. A map
is described as a list of its entries, which is the same on the wire.
"""

from __future__ import annotations

from typing import Any

from proxywasm_host.schema import Rows, described

__all__ = [
    "BUFFERED",
    "BUFFERED_PARTIAL",
    "FULL_DUPLEX_STREAMED",
    "GRPC",
    "NONE",
    "STREAMED",
    "CheckRequest",
    "CheckResponse",
    "HealthCheckRequest",
    "HealthCheckResponse",
    "ProcessingRequest",
    "ProcessingResponse",
]

BODY_MODES = ("NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED", "GRPC")
NONE, STREAMED, BUFFERED, BUFFERED_PARTIAL, FULL_DUPLEX_STREAMED, GRPC = range(len(BODY_MODES))
ENUMS = {
    "BodySendMode": BODY_MODES,
    "HeaderSendMode": ("DEFAULT", "SEND", "SKIP"),
    "ResponseStatus": ("CONTINUE", "CONTINUE_AND_REPLACE"),
    "AppendAction": ("APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"),
    "ServingStatus": ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"),
}
COMMON: Rows = {
    "HeaderValue": ((1, "key", "string"), (2, "value", "string"), (3, "raw_value", "bytes")),
    "HeaderMap": ((1, "headers", "HeaderValue*"),),
    "BoolValue": ((1, "value", "bool"),),
    "HeaderValueOption": (
        (1, "header", "HeaderValue"),
        (2, "append", "BoolValue"),
        (3, "append_action", "AppendAction"),
        (4, "keep_empty_value", "bool"),
    ),
    "HttpStatus": ((1, "code", "int32"),),
    "StructEntry": ((1, "key", "string"), (2, "value", "Struct")),
    "StringEntry": ((1, "key", "string"), (2, "value", "string")),
    "Metadata": ((1, "filter_metadata", "StructEntry*"),),
}
EXT_PROC: Rows = {
    "ProtocolConfiguration": (
        (1, "request_body_mode", "BodySendMode"),
        (2, "response_body_mode", "BodySendMode"),
    ),
    "HttpHeaders": ((1, "headers", "HeaderMap"), (3, "end_of_stream", "bool")),
    "HttpBody": ((1, "body", "bytes"), (2, "end_of_stream", "bool")),
    "HttpTrailers": ((1, "trailers", "HeaderMap"),),
    "ProcessingRequest": (
        (2, "request_headers", "HttpHeaders|request"),
        (3, "response_headers", "HttpHeaders|request"),
        (4, "request_body", "HttpBody|request"),
        (5, "response_body", "HttpBody|request"),
        (6, "request_trailers", "HttpTrailers|request"),
        (7, "response_trailers", "HttpTrailers|request"),
        (8, "metadata_context", "Metadata"),
        (9, "attributes", "StructEntry*"),
        (10, "observability_mode", "bool"),
        (11, "protocol_config", "ProtocolConfiguration"),
    ),
    "ProcessingMode": (
        (1, "request_header_mode", "HeaderSendMode"),
        (2, "response_header_mode", "HeaderSendMode"),
        (3, "request_body_mode", "BodySendMode"),
        (4, "response_body_mode", "BodySendMode"),
        (5, "request_trailer_mode", "HeaderSendMode"),
        (6, "response_trailer_mode", "HeaderSendMode"),
    ),
    "HeaderMutation": ((1, "set_headers", "HeaderValueOption*"), (2, "remove_headers", "string*")),
    "StreamedBodyResponse": ((1, "body", "bytes"), (2, "end_of_stream", "bool")),
    "BodyMutation": (
        (1, "body", "bytes|mutation"),
        (2, "clear_body", "bool|mutation"),
        (3, "streamed_response", "StreamedBodyResponse|mutation"),
    ),
    "CommonResponse": (
        (1, "status", "ResponseStatus"),
        (2, "header_mutation", "HeaderMutation"),
        (3, "body_mutation", "BodyMutation"),
        (4, "trailers", "HeaderMap"),
        (5, "clear_route_cache", "bool"),
    ),
    "HeadersResponse": ((1, "response", "CommonResponse"),),
    "BodyResponse": ((1, "response", "CommonResponse"),),
    "TrailersResponse": ((1, "header_mutation", "HeaderMutation"),),
    "GrpcStatus": ((1, "status", "uint32"),),
    "ImmediateResponse": (
        (1, "status", "HttpStatus"),
        (2, "headers", "HeaderMutation"),
        (3, "body", "bytes"),
        (4, "grpc_status", "GrpcStatus"),
        (5, "details", "string"),
    ),
    "Duration": ((1, "seconds", "int64"), (2, "nanos", "int32")),
    "ProcessingResponse": (
        (1, "request_headers", "HeadersResponse|response"),
        (2, "response_headers", "HeadersResponse|response"),
        (3, "request_body", "BodyResponse|response"),
        (4, "response_body", "BodyResponse|response"),
        (5, "request_trailers", "TrailersResponse|response"),
        (6, "response_trailers", "TrailersResponse|response"),
        (7, "immediate_response", "ImmediateResponse|response"),
        (8, "dynamic_metadata", "Struct"),
        (9, "mode_override", "ProcessingMode"),
        (10, "override_message_timeout", "Duration"),
    ),
}
EXT_AUTHZ: Rows = {
    "SocketAddress": ((2, "address", "string"), (3, "port_value", "uint32")),
    "Address": ((1, "socket_address", "SocketAddress"),),
    "Peer": ((1, "address", "Address"), (4, "principal", "string")),
    "HttpRequest": (
        (1, "id", "string"),
        (2, "method", "string"),
        (3, "headers", "StringEntry*"),
        (13, "header_map", "HeaderMap"),
        (4, "path", "string"),
        (5, "host", "string"),
        (6, "scheme", "string"),
        (9, "size", "int64"),
        (10, "protocol", "string"),
        (11, "body", "string"),
        (12, "raw_body", "bytes"),
    ),
    "Request": ((2, "http", "HttpRequest"),),
    "TlsSession": ((1, "sni", "string"),),
    "AttributeContext": (
        (1, "source", "Peer"),
        (2, "destination", "Peer"),
        (4, "request", "Request"),
        (10, "context_extensions", "StringEntry*"),
        (11, "metadata_context", "Metadata"),
        (12, "tls_session", "TlsSession"),
        (13, "route_metadata_context", "Metadata"),
    ),
    "CheckRequest": ((1, "attributes", "AttributeContext"),),
    "DeniedHttpResponse": ((1, "status", "HttpStatus"), (2, "headers", "HeaderValueOption*"), (3, "body", "string")),
    "OkHttpResponse": ((2, "headers", "HeaderValueOption*"), (5, "headers_to_remove", "string*")),
    "Status": ((1, "code", "int32"), (2, "message", "string")),
    "CheckResponse": (
        (1, "status", "Status"),
        (2, "denied_response", "DeniedHttpResponse|http_response"),
        (3, "ok_response", "OkHttpResponse|http_response"),
        (4, "dynamic_metadata", "Struct"),
    ),
}
HEALTH: Rows = {
    "HealthCheckRequest": ((1, "service", "string"),),
    "HealthCheckResponse": ((1, "status", "ServingStatus"),),
}
_MESSAGES = described("proxywasm_host.envoy", {**COMMON, **EXT_PROC, **EXT_AUTHZ, **HEALTH}, ENUMS)
ProcessingRequest: Any = _MESSAGES["ProcessingRequest"]
ProcessingResponse: Any = _MESSAGES["ProcessingResponse"]
CheckRequest: Any = _MESSAGES["CheckRequest"]
CheckResponse: Any = _MESSAGES["CheckResponse"]
HealthCheckRequest: Any = _MESSAGES["HealthCheckRequest"]
HealthCheckResponse: Any = _MESSAGES["HealthCheckResponse"]
