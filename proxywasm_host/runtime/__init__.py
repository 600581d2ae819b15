"""The runtime: VMs, plugins and streams as state machines, without I/O. Events in, effects out.

The options of a filter are in `filter_config`, with their checks in `arguments`. `http` makes local responses.
"""
