"""Effects, which the embedder performs for the host, and replies to callouts."""

from proxywasm_host.runtime.effects import *  # noqa: F403 - exactly its public names
from proxywasm_host.runtime.effects import __all__  # noqa: F401
