"""Plugins in external plugin servers (Go, JavaScript, Python), which Kong calls over a Unix socket.

`messagepack` and `protobuf` are the two protocols, without I/O; `pdk` has the functions that plugins may call; `plugin`
is a server's plugin as the gateway sees it; `process` starts and watches servers, `pool` has the connections to one.
"""
