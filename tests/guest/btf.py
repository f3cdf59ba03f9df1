"""The types of the running kernel, which it carries itself (BTF, Documentation/bpf/btf.rst): sizes, offsets, enums."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path("/sys/kernel/btf")

_STRUCT, _UNION, _ENUM, _TYPEDEF = 4, 5, 6, 8
_TAILS = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0), 15: (0, 12), 17: (4, 0)}
_TAILS[19] = (0, 12)
"""Bytes behind a type's head by kind: so many, and so many for each member."""


@dataclass
class Types:
    """Structs, unions and enumerators by name; `sizes` in bytes, `offsets` of the members of structs in bytes."""

    sizes: dict[str, int] = field(default_factory=dict)
    offsets: dict[str, list[int]] = field(default_factory=dict)
    enumerators: dict[str, int] = field(default_factory=dict)


def read(*modules: str) -> Types:
    """The types of the kernel and of some of its modules."""
    types = Types()
    by_id: dict[int, int] = {}
    base = b""
    first = 1
    for name in ("vmlinux", *modules):
        data = (FOLDER / name).read_bytes()
        magic, _, _, head, type_at, type_size, text_at, text_size = struct.unpack_from("=HBBIIIII", data)
        assert magic == 0xEB9F
        texts = base + data[head + text_at : head + text_at + text_size]
        body = memoryview(data)[head + type_at : head + type_at + type_size]
        first = _take(types, by_id, body, texts, first)
        if name == "vmlinux":
            base = texts
            kept = dict(by_id), first
        by_id, first = dict(kept[0]), kept[1]  # each module continues where the kernel ends
    return types


def _take(types: Types, by_id: dict[int, int], body: memoryview, texts: bytes, number: int) -> int:
    at = 0
    while at < len(body):
        name_at, info, size = struct.unpack_from("=III", body, at)
        kind, members = info >> 24 & 0x1F, info & 0xFFFF
        fixed, each = _TAILS.get(kind, (0, 0))
        if kind in (_STRUCT, _UNION):
            by_id[number] = size
            name = _text(texts, name_at)
            if name.startswith("xfrm"):
                types.sizes[name] = size
                types.offsets[name] = list(_offsets(body, at + 12, members, info >> 31))
        elif kind == _TYPEDEF and size in by_id:
            types.sizes.setdefault(_text(texts, name_at), by_id[size])
        elif kind == _ENUM:
            for member in range(members):
                member_name, value = struct.unpack_from("=Ii", body, at + 12 + 8 * member)
                types.enumerators.setdefault(_text(texts, member_name), value)
        at += 12 + fixed + each * members
        number += 1
    return number


def _offsets(body: memoryview, at: int, members: int, with_bits: int) -> Iterator[int]:
    for member in range(members):
        (bits,) = struct.unpack_from("=I", body, at + 12 * member + 8)
        yield (bits & 0xFFFFFF if with_bits else bits) // 8


def _text(texts: bytes, at: int) -> str:
    return texts[at : texts.index(b"\0", at)].decode()
