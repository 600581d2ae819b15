"""Kong's way to extend a gateway: plugins in Lua, plugins in servers of their own, and filters, in one chain."""
