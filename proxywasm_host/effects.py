"""What the host wants done, and the replies to callouts: the classes that embedders look for and make."""

from proxywasm_host.runtime.effects import *  # noqa: F403 - all that is public there, and nothing else
from proxywasm_host.runtime.effects import __all__  # noqa: F401
