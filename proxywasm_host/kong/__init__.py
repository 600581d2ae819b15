"""Kong's gateway: plugins in Lua, plugins in external plugin servers, and filters, in one chain."""
