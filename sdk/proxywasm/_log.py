"""Log lines, with the functions of `logging`, and tracebacks."""

from __future__ import annotations

from typing import Any

from proxywasm._host import host

__all__ = ["lines", "log", "traceback"]

# For each packed file whose lines differ from the author's: the author's line for each of its lines.
lines: dict[str, Any] = {}


class Log:
    """The host's log. Arguments, if any, are formatted into the message by ``%``."""

    def _write(self, level: int, message: Any, arguments: tuple[Any, ...]) -> None:
        host.log(level, str(message) % arguments if arguments else str(message))

    @property
    def level(self) -> int:
        """The lowest level that the host writes: 0 trace, 1 debug, 2 info, 3 warn, 4 error, 5 critical."""
        level: int = host.log_level()
        return level

    def trace(self, message: Any, *arguments: Any) -> None:
        """Log at level trace."""
        self._write(0, message, arguments)

    def debug(self, message: Any, *arguments: Any) -> None:
        """Log at level debug."""
        self._write(1, message, arguments)

    def info(self, message: Any, *arguments: Any) -> None:
        """Log at level info."""
        self._write(2, message, arguments)

    def warning(self, message: Any, *arguments: Any) -> None:
        """Log at level warn."""
        self._write(3, message, arguments)

    def error(self, message: Any, *arguments: Any) -> None:
        """Log at level error."""
        self._write(4, message, arguments)

    def critical(self, message: Any, *arguments: Any) -> None:
        """Log at level critical."""
        self._write(5, message, arguments)

    def exception(self, message: Any, *arguments: Any) -> None:
        """Log at level error. No traceback follows: the SDK logs that of each exception that leaves a handler."""
        self._write(4, message, arguments)


log = Log()


def traceback(error: BaseException) -> str:
    """The traceback of an exception, with the line numbers of the author's script."""
    text: str = host.traceback(error)
    out = []
    for line in text.strip().split("\n"):
        if line.startswith('  File "'):
            name, _, rest = line[8:].partition('", line ')
            number, _, where = rest.partition(",")
            if name in lines and number.isdigit() and int(number) <= len(lines[name]):
                line = '  File "%s", line %d,%s' % (name, lines[name][int(number) - 1], where)
        out.append(line)
    return "\n".join(out)
