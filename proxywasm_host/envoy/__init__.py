"""Servers that run filters for Envoy, and for gateways without WebAssembly, over ext_proc or ext_authz."""
