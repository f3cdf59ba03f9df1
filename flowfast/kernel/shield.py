"""The shield: an XDP program that makes merged packets survive ESP with esp4_offload.

What a driver with an XDP program hands over has 256 bytes of headroom, enough for the headers that fraglist GRO pushes.
What remains is the size check that takes small merged packets for huge ones (docs/bulking.md), so that none may be
merged. IPv4 is only checked with DF set: the shield clears DF of packets of up to LARGEST bytes. IPv6 always is.
Its UDP gets metadata of its own, which keeps GRO from merging it (skb_metadata_differs, gro_list_prepare, since 4.15):
of any size, or a large packet would pass the small one before it. Small TCP segments get PSH, which ends a merge
(tcp_gro_receive): nothing joins them, and what came before leaves first. With metadata, those with PSH would pass it.

Without the program fraglist GRO kills the kernel, so that it is held: by a link, pinned where it outlives flowfast,
which no netlink request takes off the device.

The program is written here as the kernel takes it, so that no compiler is needed; libbpf loads it.
"""

import errno
import logging
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flowfast.kernel import bpffs, libbpf
from flowfast.model.errors import FlowfastError, KernelError
from flowfast.model.knob import Knob

log = logging.getLogger(__name__)

NAME = "flowfast_shield"
LARGEST = 512
"""Bytes of IP, header included, of a packet that is small: no path needs to fragment it, whatever becomes of DF."""

_LDX_B, _LDX_H, _LDX_W = 0x71, 0x69, 0x61  # load from memory: 1, 2, 4 bytes
_STX_B, _STX_H, _STX_W = 0x73, 0x6B, 0x63
_MOV, _MOV_REGISTER, _ADD, _ADD_REGISTER, _OR, _AND = 0xB7, 0xBF, 0x07, 0x0F, 0x47, 0x57
_LSH, _RSH, _BIG_ENDIAN = 0x67, 0x77, 0xDC
_JUMP, _IF_EQUAL, _IF_NOT_EQUAL, _IF_ABOVE = 0x05, 0x15, 0x55, 0x25
_IF_EQUAL_REGISTER, _IF_ABOVE_REGISTER = 0x1D, 0x2D
_CALL, _EXIT = 0x85, 0x95
_RANDOM, _ADJUST_META = 7, 54  # bpf_get_prandom_u32, bpf_xdp_adjust_meta
_XDP_PASS = 2
_ETHERNET, _IPV4, _IPV6 = 14, 20, 40
_TCP, _UDP = 6, 17
_TCP6 = _ETHERNET + _IPV6  # where TCP begins over IPv6
_PSH = 0x08
_TIMESTAMP = 0x0A080101  # NOP, NOP, timestamp, 10 bytes: as they lie in memory
_DF, _DF_CLEARED = 0x0040, 0xFFBF  # of frag_off as it lies in memory, read on a little-endian machine

Line = tuple[str, int, int, int, int | str, int]
"""Label, code, destination, source, offset or label to jump to, immediate."""


def _lines() -> list[Line]:
    """r6: context, r2: the packet, r3: its end."""
    return [
        ("", _MOV_REGISTER, 6, 1, 0, 0),
        ("", _LDX_W, 2, 6, 0, 0),  # xdp_md.data
        ("", _LDX_W, 3, 6, 4, 0),  # xdp_md.data_end
        ("", _MOV_REGISTER, 4, 2, 0, 0),
        ("", _ADD, 4, 0, 0, _ETHERNET + _IPV4),
        ("", _IF_ABOVE_REGISTER, 4, 3, "pass", 0),
        ("", _LDX_H, 5, 2, 12, 0),
        ("", _IF_EQUAL, 5, 0, "ipv4", 0x0008),
        ("", _IF_NOT_EQUAL, 5, 0, "pass", 0xDD86),
        ("", _ADD, 4, 0, 0, _IPV6 - _IPV4),
        ("", _IF_ABOVE_REGISTER, 4, 3, "pass", 0),
        ("", _LDX_B, 5, 2, _ETHERNET + 6, 0),  # the next header
        ("", _IF_EQUAL, 5, 0, "apart", _UDP),
        ("", _IF_NOT_EQUAL, 5, 0, "pass", _TCP),
        ("", _ADD, 4, 0, 0, 20),
        ("", _IF_ABOVE_REGISTER, 4, 3, "pass", 0),
        ("", _LDX_H, 5, 2, _ETHERNET + 4, 0),  # the length of what follows IPv6's header
        ("", _BIG_ENDIAN, 5, 0, 0, 16),
        ("", _IF_ABOVE, 5, 0, "pass", LARGEST - _IPV6),
        ("", _LDX_B, 4, 2, _TCP6 + 12, 0),  # TCP's header length, in words, in the upper half
        ("", _RSH, 4, 0, 0, 4),
        ("", _MOV_REGISTER, 1, 4, 0, 0),
        ("", _LSH, 1, 0, 0, 2),
        ("", _IF_EQUAL_REGISTER, 5, 1, "pass", 0),  # no data
        ("", _LDX_B, 5, 2, _TCP6 + 13, 0),
        ("", _AND, 5, 0, 0, _PSH),
        ("", _IF_NOT_EQUAL, 5, 0, "pass", 0),
        ("", _IF_EQUAL, 4, 0, "push", 5),
        ("", _IF_NOT_EQUAL, 4, 0, "pass", 8),
        ("", _MOV_REGISTER, 4, 2, 0, 0),
        ("", _ADD, 4, 0, 0, _TCP6 + 24),
        ("", _IF_ABOVE_REGISTER, 4, 3, "pass", 0),
        ("", _LDX_W, 4, 2, _TCP6 + 20, 0),
        ("", _IF_NOT_EQUAL, 4, 0, "pass", _TIMESTAMP),  # an option might sign the flags (RFC 2385, RFC 5925)
        ("push", _LDX_B, 5, 2, _TCP6 + 13, 0),
        ("", _OR, 5, 0, 0, _PSH),
        ("", _STX_B, 2, 5, _TCP6 + 13, 0),
        ("", _LDX_H, 5, 2, _TCP6 + 16, 0),  # the checksum loses what the sum grew by
        ("", _ADD, 5, 0, 0, 0xFFFF - (_PSH << 8)),
        ("", _MOV_REGISTER, 4, 5, 0, 0),
        ("", _RSH, 4, 0, 0, 16),
        ("", _ADD_REGISTER, 5, 4, 0, 0),
        ("", _STX_H, 2, 5, _TCP6 + 16, 0),
        ("", _JUMP, 0, 0, "pass", 0),
        ("apart", _CALL, 0, 0, 0, _RANDOM),
        ("", _MOV_REGISTER, 7, 0, 0, 0),
        ("", _MOV_REGISTER, 1, 6, 0, 0),
        ("", _MOV, 2, 0, 0, -4),
        ("", _CALL, 0, 0, 0, _ADJUST_META),
        ("", _IF_NOT_EQUAL, 0, 0, "pass", 0),
        ("", _LDX_W, 2, 6, 8, 0),  # xdp_md.data_meta
        ("", _LDX_W, 3, 6, 0, 0),
        ("", _MOV_REGISTER, 4, 2, 0, 0),
        ("", _ADD, 4, 0, 0, 4),
        ("", _IF_ABOVE_REGISTER, 4, 3, "pass", 0),
        ("", _STX_W, 2, 7, 0, 0),
        ("", _JUMP, 0, 0, "pass", 0),
        ("ipv4", _LDX_B, 5, 2, _ETHERNET, 0),
        ("", _IF_NOT_EQUAL, 5, 0, "pass", 0x45),  # GRO leaves headers with options alone
        ("", _LDX_H, 5, 2, _ETHERNET + 2, 0),
        ("", _BIG_ENDIAN, 5, 0, 0, 16),
        ("", _IF_ABOVE, 5, 0, "pass", LARGEST),
        ("", _LDX_H, 5, 2, _ETHERNET + 6, 0),
        ("", _MOV_REGISTER, 4, 5, 0, 0),
        ("", _AND, 4, 0, 0, _DF),
        ("", _IF_EQUAL, 4, 0, "pass", 0),
        ("", _AND, 5, 0, 0, _DF_CLEARED),
        ("", _STX_H, 2, 5, _ETHERNET + 6, 0),
        ("", _LDX_H, 5, 2, _ETHERNET + 10, 0),  # the checksum grows by what the sum lost (RFC 1624)
        ("", _ADD, 5, 0, 0, _DF),
        ("", _MOV_REGISTER, 4, 5, 0, 0),
        ("", _RSH, 4, 0, 0, 16),
        ("", _ADD_REGISTER, 5, 4, 0, 0),
        ("", _STX_H, 2, 5, _ETHERNET + 10, 0),
        ("pass", _MOV, 0, 0, 0, _XDP_PASS),
        ("", _EXIT, 0, 0, 0, 0),
    ]


def program() -> bytes:
    """The instructions: struct bpf_insn, eight bytes each (linux/bpf.h)."""
    lines = _lines()
    at = {line[0]: number for number, line in enumerate(lines) if line[0]}
    code = b""
    for number, (_, operation, destination, source, offset, immediate) in enumerate(lines):
        jump = at[offset] - number - 1 if isinstance(offset, str) else offset
        code += struct.pack("=BBhi", operation, source << 4 | destination, jump, immediate)
    return code


def load() -> libbpf.Program:
    """The program in the kernel. Raises KernelError, Unavailable."""
    return libbpf.load_xdp(NAME, program())


class ShieldKnob:
    """The shield on a device: "on" or "off". `needed`: whether a stage is on there that kills the kernel without it."""

    def __init__(self, needed: Callable[[str], bool] = lambda _device: False) -> None:
        self._needed = needed

    def read(self, knob: Knob) -> str | None:
        """None where another program is there, where there is no such device, or nobody to tell (libbpf)."""
        with suppress(FlowfastError, OSError), libbpf.attached_xdp(socket.if_nametoindex(knob.object)) as found:
            if found is None:
                return "off"
            return "on" if found.name == NAME else None
        return None

    def write(self, knob: Knob, value: str) -> None:
        """Puts it there, held wherever it can be, or takes it off. Raises KernelError: EBUSY for a device with
        another's program, and where the shield is needed."""
        if self.read(knob) is None:
            raise KernelError(f"{knob}: another XDP program is there, or this device has no native XDP", errno.EBUSY)
        if value == "off" and self._needed(knob.object):
            raise KernelError(f"{knob} stays on: rx-gro-list is on, and without it kills the kernel", errno.EBUSY)
        index = socket.if_nametoindex(knob.object)
        pin = _pin(index)
        if pin is not None:
            libbpf.unpin_xdp(pin)  # also that of a device which is gone, and had this one's number
        if value == "off":
            if libbpf.xdp_id(index):
                libbpf.attach_xdp(index, None)
            return
        made = load()
        with libbpf.closing_program(made):
            if pin is None or not _held(index, made, pin):
                libbpf.attach_xdp(index, made)

    def held(self, device: str) -> bool:
        """Whether nobody can take it off by a slip: `ip link set DEVICE xdp off` is refused (EBUSY)."""
        with suppress(FlowfastError, OSError):
            index = socket.if_nametoindex(device)
            pin = _pin(index)
            return pin is not None and libbpf.pinned_xdp(pin) == (index, libbpf.xdp_id(index))
        return False


def _held(index: int, made: libbpf.Program, pin: Path) -> bool:
    try:
        libbpf.pin_xdp(index, made, pin)
    except KernelError as refused:
        log.debug("%s", refused)  # without links (before 5.9), or a bpffs that is read-only: it holds no less without
        return False
    return True


def _pin(index: int) -> Path | None:
    folder = bpffs.lasting()
    namespace = Path("/proc/thread-self/ns/net").stat().st_ino
    return folder / f"{NAME}-{namespace}-{index}" if folder else None
