"""Where templates are: those that come with flowfast, by name; those of the user, by path."""

from pathlib import Path as FilePath

PACKAGE = FilePath(__file__).parents[1]


def folder() -> FilePath:
    """The folder of flowfast's own templates: inside of an installed package, or beside it in a checkout."""
    packaged = PACKAGE / "rules"
    return packaged if packaged.is_dir() else PACKAGE.parent / "rules"


def names() -> list[str]:
    """The names of flowfast's own templates, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def is_path(word: str) -> bool:
    """True where a word means a file rather than the name of a template."""
    return "/" in word or word.endswith((".yaml", ".yml"))


def named(name: str) -> FilePath | None:
    """The file of flowfast's own template of that name, if there is one."""
    return folder() / f"{name}.yaml" if name in names() else None
