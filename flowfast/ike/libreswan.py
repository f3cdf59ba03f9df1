"""libreswan: ipsec.conf with its includes, `conn` sections, `also=` and `conn %default`.

Source: ipsec.conf(5) of libreswan 4 and 5.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flowfast.model.ike import IkeChild, IkeDaemon

WORDS: Mapping[str, str] = {
    "clones": "per_cpu_sas",
    "ipsec-interface": "interface",
    "nic-offload": "hw_offload",
    "nopmtudisc": "nopmtudisc",
    "replay-window": "replay_window",
    "type": "mode",
}
"""The options that are kept, and what strongSwan calls the same thing."""
_HEAD = re.compile(r"(?P<kind>config|conn|include)\s+(?P<name>\S+)")
_OPTION = re.compile(r"\s+(?P<name>[a-z][a-z0-9-]*)\s*=\s*(?P<value>.*)")
_NESTED = 10

_Sections = dict[str, dict[str, str]]


def libreswan(root: Path, path: Path = Path("/etc/ipsec.conf")) -> IkeDaemon:
    """pluto's connections, from files under `root`. What cannot be read is said."""
    reader = _Reader(root)
    reader.read(path, 0)
    return IkeDaemon("libreswan", str(path), children=tuple(_children(reader.sections)), unread=tuple(reader.unread))


@dataclass(frozen=True, slots=True)
class _Reader:
    root: Path
    sections: _Sections = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def read(self, pattern: Path, depth: int) -> None:
        """The files of a pattern, with all that they include."""
        found = sorted((self.root / str(pattern.parent).lstrip("/")).glob(pattern.name))
        if not found and "*" not in pattern.name:
            self.unread.append(f"{pattern}: no such file")
        for each in found:
            try:
                self._text(each.read_text(errors="replace"), pattern.parent, depth)
            except OSError as refused:
                self.unread.append(f"{pattern.parent}/{each.name}: {refused.strerror}")

    def _text(self, text: str, folder: Path, depth: int) -> None:
        section: dict[str, str] | None = None
        for line in text.splitlines():
            bare = line.partition("#")[0].rstrip()
            if head := _HEAD.match(bare):
                section = self.sections.setdefault(head["name"], {}) if head["kind"] == "conn" else None
                if head["kind"] == "include" and depth < _NESTED:
                    self.read(folder / head["name"], depth + 1)  # of an absolute path the folder is dropped
            elif section is not None and (option := _OPTION.match(bare)):
                _take(section, option["name"], option["value"].strip().strip('"'))


def _take(section: dict[str, str], name: str, value: str) -> None:
    if name == "also":
        section["also"] = f"{section.get('also', '')} {value}".strip()
    elif name in WORDS:
        section[WORDS[name]] = value


def _children(sections: _Sections) -> Iterator[IkeChild]:
    default = sections.get("%default", {})
    for name, section in sections.items():
        if name != "%default":
            options = default | _with_also(sections, section, 0)
            yield IkeChild(name, name, {key: value for key, value in options.items() if key != "also"})


def _with_also(sections: _Sections, section: Mapping[str, str], depth: int) -> dict[str, str]:
    merged: dict[str, str] = {}
    if depth < _NESTED:
        for other in section.get("also", "").split():
            merged |= _with_also(sections, sections.get(other, {}), depth + 1)
    return merged | dict(section)
