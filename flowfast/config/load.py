"""Reads a config file: a LoadedConfig, or a ConfigError that names everything that is wrong with it at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path as FilePath
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from flowfast.config.compose import Mistake, Unreadable, compose
from flowfast.config.hints import example, meant
from flowfast.config.problem import ConfigError, Fault, Faulty, Path, Problem, dotted
from flowfast.config.schema import Config, Tunnels
from flowfast.config.tree import Leaf, Places, data

MAX_BYTES = 16 << 20  # 100 000 tunnels with all their keys


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid config, and where in its file each value stands."""

    config: Config
    places: Places
    file: str

    def where(self, path: Path) -> str:
        """`file:line:column` of the value at `path`; of what it stands in, where the file does not give it."""
        line, column = self.places.of(path)
        return f"{self.file}:{line}:{column}"

    def problem(self, path: Path, sentence: str, remedy: str = "", *, about: Path | None = None) -> Problem:
        """A Problem at the place of `path`. `about` is what it is said of, if not the value at that place itself."""
        line, column = self.places.of(path)
        return Problem(self.file, line, column, dotted(path if about is None else about), sentence, remedy)


def load(path: str | PathLike[str]) -> LoadedConfig:
    """The config in the file. Raises ConfigError, and nothing else, whatever is in the file or instead of it."""
    file = fspath(path)
    return parse(_text(file), file)


def parse(text: str, file: str) -> LoadedConfig:
    """The config in a text; `file` is what errors call it. Raises ConfigError."""
    places = Places(text)
    try:
        root, mistakes = compose(text)
    except Unreadable as end:
        raise ConfigError([_mistake(end.mistake, places, file)]) from end
    problems = [_mistake(mistake, places, file) for mistake in mistakes]
    if root is None or (isinstance(root, Leaf) and not root.value.text):
        raise ConfigError(
            [*problems, Problem(file, 1, 1, "", "is empty", "it needs at least devices.lan and devices.wan")]
        )
    places = Places(text, root)
    value = data(root)
    try:
        config = Config.model_validate(value)
    except ValidationError as error:
        problems += [_problem(path, fault, places, file) for path, fault in _faults(error, value, places)]
        raise ConfigError(problems) from error
    if problems:
        raise ConfigError(problems)
    return LoadedConfig(config, places, file)


def _text(file: str) -> str:
    def refuse(sentence: str, remedy: str = "", line: int | None = None, column: int | None = None) -> ConfigError:
        return ConfigError([Problem(file, line, column, "", sentence, remedy)])

    try:
        with FilePath(file).open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise refuse("no such file") from None
    except IsADirectoryError:
        raise refuse("is a directory, not a file") from None
    except PermissionError:
        raise refuse("may not be read: permission denied", "run as a user who may, or change its mode") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise refuse(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise refuse(f"is larger than {MAX_BYTES >> 20} MiB", "is it a config at all?", 1, 1)
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        line, column = Places(before).at(len(before))
        raise refuse(f"is not UTF-8: byte 0x{raw[error.start]:02x} here", "save it as UTF-8", line, column) from None


def _mistake(mistake: Mistake, places: Places, file: str) -> Problem:
    line, column = places.at(mistake.start)
    return Problem(file, line, column, mistake.object, mistake.sentence, mistake.remedy)


def _problem(path: Path, fault: Fault, places: Places, file: str) -> Problem:
    key = bool(path) and path[-1] == "[key]"
    path = path[:-1] if key else path
    line, column = places.of(path, key=key)
    return Problem(file, line, column, dotted(path), fault.sentence, fault.remedy)


def _faults(error: ValidationError, value: object, places: Places) -> list[tuple[Path, Fault]]:
    faults = [
        fault for entry in error.errors(include_url=False) for fault in _said(cast(dict[str, Any], entry), places)
    ]
    # Tunnels are compared with each other only once each is valid: compare those that are.
    bad = {path[1] for path, _ in faults if len(path) > 1 and path[0] == "tunnels"}
    tunnels = value.get("tunnels") if isinstance(value, Mapping) else None
    if bad and isinstance(tunnels, Mapping):
        try:
            TypeAdapter(Tunnels).validate_python({name: one for name, one in tunnels.items() if name not in bad})
        except ValidationError as among:
            for entry in among.errors(include_url=False):
                faults += [(("tunnels", *path), fault) for path, fault in _said(cast(dict[str, Any], entry), places)]
    return faults


def _said(entry: dict[str, Any], places: Places) -> list[tuple[Path, Fault]]:
    """One of pydantic's errors in our words. Those of our own validators have them already."""
    path: Path = entry["loc"]
    match entry["type"]:
        case "value_error" if isinstance(fault := entry["ctx"]["error"], Faulty):
            return [((*path, *one.path), Fault(one.sentence, one.remedy)) for one in fault.faults]
        case "missing":
            return [(path, Fault("has no value" if places.has(path) else "missing", example(path)))]
        case "extra_forbidden":
            return [((*path, "[key]"), Fault("unknown key", meant(path)))]
    return [(path, Fault(str(entry["msg"])))]
