"""The other end of an AsyncXfrmSocket without a kernel: a Unix datagram socket that answers by a script."""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from socket import AF_UNIX, SO_SNDBUF, SOCK_DGRAM, SOL_SOCKET, socket, socketpair
from typing import NamedTuple

from flowfast.kernel.xfrm import AsyncXfrmSocket


class Asked(NamedTuple):
    """One request, less its body."""

    length: int
    type: int
    flags: int
    sequence: int


class ScriptedKernel:
    """Answers the n-th request with the n-th list of datagrams, under the request's sequence number."""

    def __init__(self, end: socket, answers: Iterable[Iterable[bytearray]]) -> None:
        self.asked: list[Asked] = []
        self._end = end
        self._answers = iter([list(datagrams) for datagrams in answers])
        self._buffer = bytearray(1 << 16)

    def readable(self) -> None:
        """Takes a request and answers it. Requests and answers are wiped: they may hold keys."""
        size = self._end.recv_into(self._buffer)
        length, kind, flags, sequence = struct.unpack_from("=IHHI", self._buffer)
        self.asked.append(Asked(length, kind, flags, sequence))
        self._buffer[:size] = bytes(size)
        for datagram in next(self._answers, []):
            at = 0
            while at < len(datagram):
                struct.pack_into("=I", datagram, at + 8, sequence)
                at += max(16, struct.unpack_from("=I", datagram, at)[0] + 3 & ~3)
            self._end.send(datagram)
            datagram[:] = bytes(len(datagram))


@asynccontextmanager
async def scripted(
    *answers: Iterable[bytearray], buffer_size: int = 1 << 20
) -> AsyncIterator[tuple[AsyncXfrmSocket, ScriptedKernel]]:
    """An AsyncXfrmSocket, and the kernel that answers it."""
    ours, theirs = socketpair(AF_UNIX, SOCK_DGRAM)
    theirs.setsockopt(SOL_SOCKET, SO_SNDBUF, 1 << 22)
    kernel = ScriptedKernel(theirs, answers)
    loop = asyncio.get_running_loop()
    loop.add_reader(theirs, kernel.readable)
    try:
        async with AsyncXfrmSocket(use_socket=ours, buffer_size=buffer_size) as xfrm:
            yield xfrm, kernel
    finally:
        loop.remove_reader(theirs)
        theirs.close()
        ours.close()
