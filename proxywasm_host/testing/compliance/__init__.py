"""The tests that every engine must pass. They check capabilities, never an engine's name."""

from __future__ import annotations

from .exceptions import Exceptions
from .full_stack import FullStack
from .life import Life
from .limits import Deadlines, MemoryLimits
from .linking import Linking
from .memory import Memories, Nesting
from .modules import Modules
from .native import Native
from .processes import Forks
from .serialising import Serialising
from .starting import Starting
from .threads import Threads
from .traps import Traps
from .values import Values

__all__ = ["EngineComplianceSuite"]


class EngineComplianceSuite(
    Modules,
    Linking,
    Values,
    Memories,
    Nesting,
    Traps,
    Exceptions,
    FullStack,
    Native,
    Starting,
    Deadlines,
    MemoryLimits,
    Serialising,
    Threads,
    Forks,
    Life,
):
    """Tests of the engine protocol, `proxywasm_host.engine.protocol`, for pytest.

    Subclass it and set the engine; tests of capabilities that it does not declare are skipped::

        class TestMyEngine(EngineComplianceSuite):
            engine = "my_package:MyEngine"

    You can also override the fixture ``engine``. Each test is a method, which you can override where a difference is
    intended; `Life.instances` and `Life.seconds` bound the longest one.
    """
