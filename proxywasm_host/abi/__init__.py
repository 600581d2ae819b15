"""The ABI as data, its marshalling, and the handler of each hostcall. No I/O, no engine, no clock.

A new hostcall is a row in `table` and a handler of the same name in `hostcalls`; a new callback is a row.
"""
