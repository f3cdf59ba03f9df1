"""Taps ESP on a wire: which sequence number passed when, to the microsecond, for one packet in 32.

A program that reads counters is late when the network is busy: the kernel works off what is queued before the program
goes on, and that is a tenth of a second and more here. The kernel's own time stamps, and the numbers that senders give
their packets (RFC 4303 section 2.2), are of the moment.
"""

import contextlib
import socket
import struct
import time
from types import TracebackType
from typing import NamedTuple, Self

from flowfast.kernel.bpf import attach
from flowfast.lab.capture import ETH_P_ALL, SO_RCVBUFFORCE
from flowfast.lab.wires import End

SO_TIMESTAMPNS = 35  # include/uapi/asm-generic/socket.h; also the type of the control message
TIMESPEC = struct.Struct("@ll")
ONE_IN = 32

# Classic BPF (include/uapi/linux/bpf_common.h): code, jump if true, jump if false, operand.
ONE_ESP_IN_MANY = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x20, 0, 0, 0xFFFFF038),  # a random number: SKF_AD_OFF + SKF_AD_RANDOM
        (0x54, 0, 0, ONE_IN - 1),
        (0x15, 0, 5, 0),
        (0x28, 0, 0, 12),
        (0x15, 0, 3, 0x0800),  # IPv4
        (0x30, 0, 0, 23),
        (0x15, 0, 1, 50),  # ESP
        (0x06, 0, 0, 64),
        (0x06, 0, 0, 0),
    )
)


class Seen(NamedTuple):
    """An ESP packet: when it passed (time.monotonic()), whose, and its number (the lower half of it, with ESN)."""

    at: float
    spi: int
    sequence: int


class Tap:
    """`with Tap(End(gw1, "wan0")) as tap: ...; tap.seen()`: packets of both directions, ESP over IPv4."""

    def __init__(self, end: End) -> None:
        self._end = end

    def __enter__(self) -> Self:
        self._socket = self._end.ns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        attach(self._socket, ONE_ESP_IN_MANY)
        # Bound with a protocol only now: from here on it receives.
        self._socket.bind((self._end.name, ETH_P_ALL))
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._socket.close()

    def seen(self) -> list[Seen]:
        """What has passed since this was asked last."""
        offset = time.clock_gettime(time.CLOCK_REALTIME) - time.monotonic()
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, control, _, _ = self._socket.recvmsg(64, 64, socket.MSG_DONTWAIT)
                seconds, nanoseconds = TIMESPEC.unpack_from(control[0][2])
                found.append(Seen(seconds + nanoseconds / 1e9 - offset, *numbers(frame)))
        return found


def numbers(frame: bytes) -> tuple[int, int]:
    """SPI and sequence number of an Ethernet frame with ESP over IPv4, options included."""
    header = 14 + (frame[14] & 0xF) * 4
    spi, sequence = struct.unpack_from("!II", frame, header)
    return spi, sequence
