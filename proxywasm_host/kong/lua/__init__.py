"""Kong's plugins in Lua, unmodified, in a sandbox of this process. Needs the extra ``lua``."""

from proxywasm_host.kong.lua.plugins import LuaPlugin, LuaPlugins
from proxywasm_host.kong.lua.runtime import Settings
from proxywasm_host.kong.lua.shared_dictionaries import SharedDictionaries

__all__ = ["LuaPlugin", "LuaPlugins", "Settings", "SharedDictionaries"]
