"""Asks strongSwan's daemon over its vici socket: which version it is, and which connections it has.

Packets: a length in 4 bytes, a type, the command's name; in the answer elements, each with a type of its own.
Source: README.md of strongSwan's libcharon/plugins/vici.
"""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_REQUEST, _RESPONSE = 0, 1
_KEY_VALUE, _LIST_ITEM = 3, 5
_NAMED = frozenset((1, 3, 4))  # section start, key and value, list start: these begin with a name
_PATIENCE = 5.0
_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon said of itself."""

    version: str
    connections: frozenset[str]


def ask(path: Path) -> Answer | None:
    """None where nobody answers at that socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as link:
            link.settimeout(_PATIENCE)
            link.connect(str(path))
            version = dict(each for each in _command(link, b"version") if each[0])
            connections = frozenset(value for key, value in _command(link, b"get-conns") if not key)
    except (OSError, ValueError, struct.error):
        return None
    return Answer(version.get("version", ""), connections)


def _command(link: socket.socket, name: bytes) -> list[tuple[str, str]]:
    packet = bytes((_REQUEST, len(name))) + name
    link.sendall(struct.pack("!I", len(packet)) + packet)
    (length,) = struct.unpack("!I", _exactly(link, 4))
    if not 0 < length <= _MOST:
        raise ValueError("vici: an answer of impossible length")
    kind, *elements = _exactly(link, length)
    if kind != _RESPONSE:
        raise ValueError(f"vici: {name.decode()} was answered by a packet of type {kind}")
    return list(decode(bytes(elements)))


def decode(elements: bytes) -> Iterator[tuple[str, str]]:
    """Keys with their values, and the items of lists with an empty key. Raises struct.error or ValueError."""
    at = 0
    while at < len(elements):
        kind, key = elements[at], ""
        at += 1
        if kind in _NAMED:
            size = elements[at]
            key, at = elements[at + 1 : at + 1 + size].decode(errors="replace"), at + 1 + size
        if kind in (_KEY_VALUE, _LIST_ITEM):
            (size,) = struct.unpack_from("!H", elements, at)
            yield key, elements[at + 2 : at + 2 + size].decode(errors="replace")
            at += 2 + size


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            raise ValueError("vici: the daemon hung up")
        data += more
    return data
