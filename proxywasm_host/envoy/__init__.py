"""Filters behind Envoy and other gateways that have no WebAssembly: servers that they ask, by ext_proc or ext_authz."""
