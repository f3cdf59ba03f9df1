"""The syntax of strongswan.conf and swanctl.conf: sections in braces, `key = value`, includes, references.

Source: strongswan.conf(5), "SYNTAX", "INCLUDING FILES" and "REFERENCING OTHER SECTIONS".
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_SPACE = re.compile(r"(?:[\s,]|#[^\n]*)*")
_NAME = r"(?P<name>[^\s{}=#:\",]+)"
_INCLUDE = re.compile(r"include[ \t]+(?:\"(?P<quoted>[^\"]*)\"|(?P<bare>[^\s#]+))")
_SECTION = re.compile(_NAME + r"[ \t]*(?::(?P<of>[^{}=#\n]*))?\s*\{")
_VALUE = re.compile(_NAME + r"[ \t]*=[ \t]*(?P<value>(?:\"(?:\\.|[^\"\\])*\"|[^\n#}\"])*)", re.DOTALL)
_QUOTED = re.compile(r"\"((?:\\.|[^\"\\])*)\"", re.DOTALL)

Include = Callable[[str], Iterator[str]]
"""The texts of the files that a pattern means."""

SECRET = "secrets"  # noqa: S105 - a name, not a password
"""The section of swanctl.conf that is never looked into."""


class BadSettings(ValueError):
    """What is no settings file. Names the line, and nothing of what is in it."""


@dataclass(slots=True)
class Settings:
    """Options by their full name ("connections.site.children.net.hw_offload"), and every section that is there."""

    values: dict[str, str] = field(default_factory=dict)
    sections: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Name -> the sections that it takes its defaults from."""

    def get(self, path: str) -> str | None:
        """An option's value; of a section that refers to others, theirs where it has none itself."""
        return self._get(path, 8)

    def _get(self, path: str, depth: int) -> str | None:
        if path in self.values or not depth:
            return self.values.get(path)
        parts = path.split(".")
        for at in range(len(parts) - 1, 0, -1):
            section, rest = ".".join(parts[:at]), ".".join(parts[at:])
            for other in self.sections.get(section, ()):
                if (found := self._get(f"{other}.{rest}", depth - 1)) is not None:
                    return found
        return None

    def within(self, path: str) -> list[str]:
        """Names of the sections right below one, also those of the sections that it refers to."""
        found: dict[str, None] = {}
        for where in (path, *self.sections.get(path, ())):
            start = f"{where}."
            below = (name[len(start) :] for name in self.sections if name.startswith(start))
            found |= dict.fromkeys(name for name in below if "." not in name)
        return list(found)


class _Open(NamedTuple):
    path: str
    secret: bool


def parse(text: str, keep: Collection[str], include: Include, into: Settings | None = None) -> Settings:
    """Reads settings; of the options only those whose last name is in `keep`. Raises BadSettings."""
    settings = Settings() if into is None else into
    _Reader(settings, keep, include).read(text, _Open("", secret=False), 0)
    return settings


_NESTED = 10


@dataclass(frozen=True, slots=True)
class _Reader:
    settings: Settings
    keep: Collection[str]
    include: Include

    def read(self, text: str, top: _Open, depth: int) -> None:
        opened, at = [top], 0
        while (at := _end(_SPACE, text, at)) < len(text):
            here = opened[-1]
            if text[at] == "}":
                if len(opened) == 1:
                    raise BadSettings(f"line {_line(text, at)}: a brace closes what was never opened")
                opened.pop()
                at += 1
            elif found := _INCLUDE.match(text, at):
                if depth < _NESTED and not here.secret:
                    for more in self.include(found["quoted"] or found["bare"] or ""):
                        self.read(more, here, depth + 1)
                at = found.end()
            elif found := _SECTION.match(text, at):
                opened.append(self._section(here, found["name"], found["of"] or ""))
                at = found.end()
            elif found := _VALUE.match(text, at):
                self._value(here, found["name"], found["value"])
                at = found.end()
            else:
                raise BadSettings(f"line {_line(text, at)}: neither a section nor an option")
        if len(opened) > 1:
            raise BadSettings(f"section {opened[-1].path} has no end")

    def _section(self, here: _Open, name: str, of: str) -> _Open:
        path = _join(here.path, name)
        if here.secret or name.startswith(SECRET):
            return _Open(path, secret=True)
        others = tuple(other.strip() for other in of.split(",") if other.strip())
        self.settings.sections[path] = (*self.settings.sections.get(path, ()), *others)
        return _Open(path, secret=False)

    def _value(self, here: _Open, name: str, value: str) -> None:
        path = _join(here.path, name)
        if path.rpartition(".")[2] in self.keep and not here.secret and not path.startswith(SECRET):
            self.settings.values[path] = _QUOTED.sub(lambda part: part[1], value).strip()


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
