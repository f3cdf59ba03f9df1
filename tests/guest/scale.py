"""What the tests of scale share: a thousand tunnels of a gateway, rekeys by our own calls, and time by instructions.

With icount guest time counts instructions: 1 ms is a million of the guest's only CPU, sender, receiver, kernel and
controller together. An idle guest's clock would jump, so Awake keeps it busy.
"""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

from flowfast import bench
from flowfast.apply.commit import commands_of
from flowfast.config.load import parse
from flowfast.kernel.conntrack import dump
from flowfast.kernel.libnftables import run
from flowfast.kernel.probe import FakeProbe
from flowfast.kernel.real import real_kernel
from flowfast.kernel.xfrm import Aead, AsyncXfrmSocket, SAConfig
from flowfast.lab.manual_keys import MARK, SPI_IN, SPI_OUT
from flowfast.lab.topology import TwoGateways, wan_address
from flowfast.model.sa import SA, Mark, Policy
from flowfast.model.state import Status
from flowfast.observe import observe
from flowfast.plan.diff import diff
from flowfast.plan.planner import plan

FIRST = 1000
"""Number of the first further peer: with a mark that is not the real one's."""
WINDOW = 128
"""Of every SA: before 6.10 an SA has no direction, and one with ESN must have a window, also outbound."""
PORT, OURS = 77, 4077
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33


def config_of(sa: SA) -> SAConfig:
    """What installs such an SA, with a key of its own."""
    return SAConfig(
        src=sa.src,
        dst=sa.dst,
        spi=sa.spi,
        reqid=sa.reqid,
        aead=Aead("rfc4106(gcm(aes))", bytearray(os.urandom(20))),
        esn=True,
        replay_window=WINDOW,
        output_mark=sa.output_mark,
    )


def install(tunnels: int) -> None:
    """In a gateway's namespace: policies and SAs of so many further peers, whom nobody will ever hear of."""

    async def go() -> None:
        async with AsyncXfrmSocket() as xfrm:
            for number in range(FIRST, FIRST + tunnels):
                for policy in bench.policies(number):
                    await xfrm.add_policy(policy)
                for sa in bench.sa_pair(number):
                    await xfrm.add_sa(config_of(sa))

    asyncio.run(go())


@cache
def further(tunnels: int) -> tuple[tuple[Policy, ...], tuple[SA, ...]]:
    """Policies and SAs of so many further peers; made once, before the processes that need them."""
    numbers = range(FIRST, FIRST + tunnels)
    return (
        tuple(policy for number in numbers for policy in bench.policies(number)),
        tuple(sa for number in numbers for sa in bench.sa_pair(number)),
    )


def hold(tunnels: int, settings: str) -> None:
    """In a gateway's namespace: the ruleset of what is there and so many further peers, who have no policies here."""

    async def go() -> None:
        kernel = real_kernel()
        state = await observe(kernel, await FakeProbe().features())
        policies, sas = further(tunnels)
        more = replace(state, policies=(*state.policies, *policies), sas=(*state.sas, *sas))
        wanted = plan(more, parse(settings, "test").config).ruleset
        kernel.nft.commit(commands_of(diff(wanted, state.ruleset)))

    asyncio.run(go())


# one connection, packet by packet


@dataclass
class Chat:
    """A UDP connection from h1, port OURS, to h2, port PORT."""

    ours: socket.socket
    theirs: socket.socket

    def exchange(self) -> None:
        """A packet there and one back."""
        self.ours.send(b"?")
        _, sender = self.theirs.recvfrom(100)
        self.theirs.sendto(b"!", sender)
        self.ours.recv(100)


@contextmanager
def chat(topo: TwoGateways) -> Iterator[Chat]:
    """The connection, from when it is on the flowtable of gw1."""
    with (
        topo.h1.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        topo.h2.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        for end, address, port in ((ours, topo.host_address(1, 4), OURS), (theirs, topo.host_address(2, 4), PORT)):
            end.bind((address, port))
            end.settimeout(20)
        theirs.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        theirs.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
        ours.connect((topo.host_address(2, 4), PORT))
        talk = Chat(ours, theirs)
        deadline = time.monotonic() + 60
        while not topo.gw1.call(is_fast):
            assert time.monotonic() < deadline
            for _ in range(5):
                talk.exchange()
        yield talk


def is_fast() -> bool:
    """In a gateway's namespace: whether the connection is on the flowtable."""
    return any(flow.sport == OURS for flow in dump(Status.OFFLOAD.value))


# rekeys


def rekeys(numbers: range, talk: Chat) -> list[float]:
    """In gw1: rekeys the tunnel so often; seconds from the first call of each until its connection is fast again.

    Each is two new SAs here, and the old ones deleted, as an IKE daemon does it. The packets that it takes are in it.
    The kernel frees old flows once a second, and finds no newer one of a connection behind 16 of them
    (RHT_ELASTICITY, lib/rhashtable.c): that many rekeys of one tunnel in a second are not a router's.
    """

    async def go() -> list[float]:
        took = []
        async with AsyncXfrmSocket() as here, AsyncXfrmSocket("gw2") as there:
            for number in numbers:
                old, spis = _spis(number), _spis(number + 1)
                ours, theirs = _pairs(spis)
                for config in theirs:
                    await there.add_sa(config)
                began = time.monotonic()
                for config in ours:
                    await here.add_sa(config)
                await here.delete_sa(wan_address(2, 4), old[0])
                await here.delete_sa(wan_address(1, 4), old[1])
                talk.exchange()
                while not is_fast():
                    talk.exchange()
                took.append(time.monotonic() - began)
                await there.delete_sa(wan_address(2, 4), old[0])
                await there.delete_sa(wan_address(1, 4), old[1])
                for _ in range(5):
                    talk.exchange()
        return took

    return asyncio.run(go())


def _spis(number: int) -> tuple[int, int]:
    """Outbound and inbound, seen from gw1, after so many rekeys."""
    return SPI_OUT + 1 + 0x100 * number, SPI_IN + 1 + 0x100 * number


def _pairs(spis: tuple[int, int]) -> tuple[list[SAConfig], list[SAConfig]]:
    """The SAs of a rekey, at gw1 and at gw2."""
    ends, keys = (wan_address(1, 4), wan_address(2, 4)), (os.urandom(20), os.urandom(20))

    def one(way: int, mark: int | None) -> SAConfig:
        src, dst = ends if way == 0 else ends[::-1]
        return SAConfig(
            src=src,
            dst=dst,
            spi=spis[way],
            reqid=1,
            aead=Aead("rfc4106(gcm(aes))", bytearray(keys[way])),
            esn=True,
            replay_window=WINDOW,
            output_mark=None if mark is None else Mark(mark, 0xFFFFFFFF),
        )

    return (
        [one(1, MARK + 1), one(0, None)],
        [one(0, None), one(1, None)],
    )


# the operator's change


@dataclass(frozen=True)
class Stopped:
    """Nanoseconds since the epoch: when the rule was handed over, the last packet's arrival, the last sent."""

    rule: int
    last: int
    sent: int


def block(rule: str) -> int:
    """In a gateway's namespace: commits the operator's rule; returns when that began."""
    began = time.time_ns()
    run(rule)
    return began


def stop_by(topo: TwoGateways, talk: Chat, rule: str) -> Stopped:
    """A packet a millisecond over the fast path, and a rule that should end it. Arrivals are stamped by the kernel."""
    done, sent = threading.Event(), [0]

    def send() -> None:
        while not done.wait(0.001):
            talk.ours.send(b"?")
            sent[0] = time.time_ns()

    sender = threading.Thread(target=send)
    sender.start()
    time.sleep(0.2)
    began = topo.gw1.call(block, rule)
    time.sleep(1)
    done.set()
    sender.join()
    return Stopped(began, max(_arrivals(talk.theirs)), sent[0])


def _arrivals(received: socket.socket) -> Iterable[int]:
    received.setblocking(False)
    while True:
        try:
            _, ancillary, _, _ = received.recvmsg(100, 100)
        except BlockingIOError:
            return
        (stamp,) = (data for level, kind, data in ancillary if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS))
        yield int.from_bytes(stamp[:8], "little") * 10**9 + int.from_bytes(stamp[8:16], "little")
