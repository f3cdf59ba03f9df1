"""What is wrong in a config file, and where. One Problem is one line on the screen."""

from collections.abc import Iterable
from dataclasses import dataclass

from flowfast.model.errors import UsageError

Path = tuple[str | int, ...]
"""Keys and list indexes from the top of the file: ("devices", "lan", 0)."""

_SHOWN = 60  # characters of the user's own text that an error repeats


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. Line and column count from 1 and are None where there is no text to point at (no such file)."""

    file: str
    line: int | None
    column: int | None
    object: str
    sentence: str
    remedy: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        about = f"{self.object}: " if self.object else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return printable(f"{place}: {about}{self.sentence}{remedy}")


class ConfigError(UsageError):
    """A config file that cannot be used, with everything that is wrong in it, in the order of the file.

    Where it is put together from several files, the lines of each stand together.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        found = list(problems)
        files = list(dict.fromkeys(problem.file for problem in found))
        order = {file: at for at, file in enumerate(files)}
        self.problems = tuple(sorted(found, key=lambda one: (order[one.file], one.line or 0, one.column or 0)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a value, before anybody knows where in a file the value stands. `path` is relative to it."""

    sentence: str
    remedy: str = ""
    path: Path = ()


class Faulty(ValueError):
    """Raised by validators. A ValueError, so that pydantic gathers it with the others instead of stopping."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        super().__init__("; ".join(printable(_plain(fault)) for fault in faults))


def _plain(fault: Fault) -> str:
    where = f"{dotted(fault.path)}: " if fault.path else ""
    return where + fault.sentence + (f" ({fault.remedy})" if fault.remedy else "")


def faulty(sentence: str, remedy: str = "") -> Faulty:
    """One fault of the value itself."""
    return Faulty(Fault(sentence, remedy))


def dotted(path: Path) -> str:
    """A path as errors and documentation write it: `devices.lan[0]`, `tunnels["a b"].peer`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step and all(letter.isalnum() or letter in "_-." for letter in step) and len(step) <= _SHOWN:
            text += f".{step}" if text else step
        else:
            text += f"[{quoted(step)}]"
    return text


def quoted(text: str) -> str:
    """The user's own text in double quotes, shortened, on one line."""
    short = text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    return '"' + printable(short.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def printable(text: str) -> str:
    """The text on one line: what a terminal would act on, or cannot show, as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
