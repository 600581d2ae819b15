"""The tests that every engine must pass. They depend on capabilities, never on the name of an engine."""

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
    """Tests for pytest of the engine protocol, `proxywasm_host.engine.protocol`.

    Subclass it and set the engine. Tests of capabilities that the engine does not declare are skipped::

        class TestMyEngine(EngineComplianceSuite):
            engine = "my_package:MyEngine"

    You can also override the fixture ``engine``. Each test is a method that you can override where a difference is
    intended. `Life.instances` and `Life.seconds` limit the longest test.
    """
