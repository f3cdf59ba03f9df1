"""Reads files into trees, and gathers what is wrong with them, so that all of it is said at once."""

from pathlib import Path as FilePath

from flowfast.config.compose import MAX_NODES, Mistake, Unreadable, compose
from flowfast.config.problem import ConfigError, Fault, Path, Problem
from flowfast.config.tree import Leaf, Node, Place, Places, Tree

MAX_BYTES = 16 << 20  # 100 000 tunnels with all their keys


class Sources:
    """Everything that one config is read from."""

    def __init__(self) -> None:
        self.places = Places()
        self.problems: list[Problem] = []
        self._nodes = 0

    def tree(self, text: str, file: str, needs: str) -> Tree:
        """The tree of a text. Raises ConfigError where it cannot be read on, or is empty (`needs`: the remedy)."""
        base = self.places.add(file, text)
        try:
            root, mistakes = compose(text, base=base)
        except Unreadable as end:
            self._take(end.mistake)
            raise ConfigError(self.problems) from end
        for mistake in mistakes:
            self._take(mistake)
        if root is None or (isinstance(root, Leaf) and not root.value.text):
            raise ConfigError([*self.problems, Problem(file, 1, 1, "", "is empty", needs)])
        return Tree(root, self.places)

    def _take(self, mistake: Mistake) -> None:
        self.complain(self.places.at(mistake.start), mistake.object, mistake.sentence, mistake.remedy)

    def complain(self, place: Place, about: str, sentence: str, remedy: str = "") -> None:
        """Keeps a problem with what stands at a place."""
        self.problems.append(Problem(place.file, place.line, place.column, place.about(about), sentence, remedy))

    def blame(self, tree: Tree, path: Path, fault: Fault) -> None:
        """Keeps a problem with the value at a path of a tree."""
        self.problems.append(tree.problem(path, fault))

    def stop(self) -> None:
        """Raises ConfigError if there are problems."""
        if self.problems:
            raise ConfigError(self.problems)

    def count(self, node: Node, place: Place) -> None:
        """Counts what a template repeats of a parameter's value. Raises ConfigError before there is too much of it."""
        self._nodes += node.size
        if self._nodes > MAX_NODES:
            self.complain(place, "", f"more than {MAX_NODES} values, with parameters filled in", "write less")
            self.stop()


def read_text(file: str) -> str:
    """The text of a file. Raises ConfigError, and nothing else."""

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
        places = Places()
        place = places.at(places.add(file, before) + len(before))
        sentence = f"is not UTF-8: byte 0x{raw[error.start]:02x} here"
        raise refuse(sentence, "save it as UTF-8", place.line, place.column) from None
