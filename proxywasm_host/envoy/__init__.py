"""Servers that run filters for Envoy and for gateways without WebAssembly, which ask by ext_proc or ext_authz."""
