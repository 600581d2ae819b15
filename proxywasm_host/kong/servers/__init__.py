"""Plugins in servers of their own, which Kong calls by a Unix socket: Go, JavaScript, Python.

`messagepack` and `protobuf` are the two protocols, without I/O; `pdk` is what plugins may call; `plugin` is a plugin of
a server as the gateway sees it; `process` starts and watches servers, `pool` has the connections to one.
"""
