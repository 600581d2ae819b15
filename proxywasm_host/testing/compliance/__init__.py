"""What every engine has to do. It asks for capabilities, never for an engine's name."""

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

    Subclass it and say which engine; what that does not declare in its `Capabilities` is skipped::

        class TestMyEngine(EngineComplianceSuite):
            engine = "my_package:MyEngine"

    An override of the fixture ``engine`` does as well. Each test is a method, to be overridden where a difference is
    meant; `Life.instances` and `Life.seconds` bound the one that takes long.
    """
