"""Plugins in external plugin servers (Go, JavaScript, Python), which Kong calls over a Unix socket.

`messagepack` and `protobuf` are the two protocols, without I/O; `pdk` has the functions that plugins may call; `plugin`
is the gateway's interface to a server's plugin; `process` starts and watches servers, `pool` connects to one.
"""
