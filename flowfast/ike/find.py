"""Which IKE daemons run in a network namespace: by the processes that are there.

Each is asked with the files that it sees itself (its mount namespace and environment), so that one in a container, or
one of several on a machine, is read right.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from flowfast.ike.libreswan import libreswan
from flowfast.ike.strongswan import strongswan
from flowfast.ike.vici import ask
from flowfast.model.ike import IkeDaemon

_PROGRAMS = ("charon-systemd", "charon", "pluto")
_WANTED = ("STRONGSWAN_CONF", "SWANCTL_DIR")
"""All that is taken of a daemon's environment."""


def find_daemons(netns: Iterable[str] = (), proc: Path = Path("/proc")) -> tuple[IkeDaemon, ...]:
    """The daemons of this network namespace, and of those that are named (in /run/netns). Needs root to see others'."""
    ours = {_inode(proc / "self/ns/net"), *(_inode(Path("/run/netns") / name) for name in netns)} - {None}
    return tuple(_daemon(folder, program) for folder, program in _running(proc) if _inode(folder / "ns/net") in ours)


def _daemon(folder: Path, program: str) -> IkeDaemon:
    root = folder / "root"
    if program == "pluto":
        return libreswan(root)
    return strongswan(program, root, _environment(folder / "environ"), ask)


def _running(proc: Path) -> Iterator[tuple[Path, str]]:
    for comm in sorted(proc.glob("[0-9]*/comm")):
        try:
            name = comm.read_text().strip()
        except OSError:
            continue  # it has ended since
        if name in _PROGRAMS:
            yield comm.parent, name


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _environment(path: Path) -> Mapping[str, str]:
    try:
        pairs = (pair.partition(b"=") for pair in path.read_bytes().split(b"\0"))
    except OSError:
        return {}
    found = {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}
    return {name: found[name] for name in _WANTED if name in found}
