"""The runtime: VMs, plugins and streams as state machines, without I/O. Events in, effects out."""
