"""What helps to test with this library: the suite that an engine has to pass.

pytest is needed by the suite alone, and imported when that is asked for.
"""

from typing import TYPE_CHECKING

from proxywasm_host import remedy

from .guest import Guest

if TYPE_CHECKING:
    from .compliance import EngineComplianceSuite

__all__ = ["EngineComplianceSuite", "Guest"]


def __getattr__(name: str) -> object:
    if name != "EngineComplianceSuite":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import pytest  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise remedy.missing("testing", error) from None

    pytest.register_assert_rewrite(f"{__name__}.compliance")
    from .compliance import EngineComplianceSuite  # noqa: PLC0415

    globals()[name] = EngineComplianceSuite
    return EngineComplianceSuite


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
