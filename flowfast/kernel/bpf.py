"""Classic BPF for packet sockets: an assembler with labels, and how a filter is attached."""

import ctypes
import socket
import struct
from collections.abc import Iterable

SO_ATTACH_FILTER = 26
PACKET_TYPE = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE (include/uapi/linux/filter.h)
PACKET_OUTGOING = 4

# include/uapi/linux/bpf_common.h
_LOAD_HALF, _LOAD_BYTE, _LOAD_HALF_X, _LOAD_X_IHL = 0x28, 0x30, 0x48, 0xB1
_JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x15, 0x35, 0x45, 0x06
_LOADS = {"half": _LOAD_HALF, "byte": _LOAD_BYTE, "half x+": _LOAD_HALF_X, "x ihl": _LOAD_X_IHL}
_JUMPS = {"==": _JUMP_EQUAL, ">=": _JUMP_GREATER_EQUAL, "&": _JUMP_SET}

Line = str | tuple[str, int] | tuple[str, int, str]
"""A label, a load (what, offset), or a comparison (how, with what, where to go if it holds)."""


def assemble(program: Iterable[Line]) -> bytes:
    """The program as an array of struct sock_filter (code, jt, jf, k)."""
    labels: dict[str, int] = {}
    instructions: list[tuple[str, int] | tuple[str, int, str]] = []
    for line in program:
        if isinstance(line, str):
            labels[line] = len(instructions)
        else:
            instructions.append(line)
    code = b""
    for number, line in enumerate(instructions):
        name, constant = line[0], line[1]
        if len(line) == 3:
            code += struct.pack("=HBBI", _JUMPS[name], labels[line[2]] - number - 1, 0, constant)
        elif name in _LOADS:
            code += struct.pack("=HBBI", _LOADS[name], 0, 0, constant)
        else:
            code += struct.pack("=HBBI", _RETURN, 0, 0, 0xFFFFFFFF if name == "keep" else 0)
    return code


def attach(to: socket.socket, program: bytes) -> None:
    """Attaches the filter to a packet socket; offsets are from where its packets begin (packet(7))."""
    array = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the length in instructions, and a pointer.
    to.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(array)))
