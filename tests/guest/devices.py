"""Devices with IPsec offload that need no hardware, as wires of the lab; and SAs and policies in them.

netdevsim (Linux' own) takes SAs by crypto offload: it keeps books of them, and encrypts nothing. espsim
(flowfast/lab/espsim.py) takes SAs and policies by packet offload, and does all of ESP.
"""

import asyncio
import json
import os
import secrets
import socket
import subprocess
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowfast.kernel.xfrm import Aead, AsyncXfrmSocket, SAConfig
from flowfast.lab.espsim import EspSims
from flowfast.lab.netns import RUN, Netns
from flowfast.lab.plaintext import watch_plaintext
from flowfast.lab.topology import Family, TwoGateways, lan_prefix, two_gateways, wan_address
from flowfast.lab.wires import End
from flowfast.model.sa import Direction, Mode, Offload, Policy, Selector, Template
from tests.guest.oneshot import flowfast, to_and_fro

BUS = Path("/sys/bus/netdevsim")
US, PEER = wan_address(1, 4), wan_address(2, 4)
SPI_OUT, SPI_IN = 0x1001, 0x2001
CRYPTO, PACKET = 0, 4


class NetdevSims:
    """Pairs of netdevsims that are linked: what one sends the other receives, as it was sent."""

    def __init__(self) -> None:
        subprocess.run(["modprobe", "netdevsim"], check=True)
        self._made: list[int] = []

    def join(self, one: End, other: End) -> None:
        """Two new devices. Their devlink moves with them, so that it is asked for where they are."""
        ends = []
        for end in (one, other):
            number = len(self._made) + 1
            (BUS / "new_device").write_text(f"{number} 1")
            self._made.append(number)
            handle = f"netdevsim/netdevsim{number}"
            subprocess.run(["devlink", "dev", "reload", handle, "netns", end.ns.name], check=True)
            end.ns.run(["ip", "link", "set", _newest(end.ns), "name", end.name])
            ends.append((os.open(RUN / end.ns.name, os.O_RDONLY), index_of(end.ns, end.name)))
        (BUS / "link_device").write_text(" ".join(f"{fd}:{index}" for fd, index in ends))
        for fd, _ in ends:
            os.close(fd)

    def close(self) -> None:
        """Removes them."""
        while self._made:
            (BUS / "del_device").write_text(str(self._made.pop()))


def _newest(ns: Netns) -> str:
    links = json.loads(ns.run(["ip", "-j", "link"]).stdout)
    return str(max(links, key=lambda link: int(link["ifindex"]))["ifname"])


def books(number: int = 1) -> str:
    """What netdevsim keeps of the SAs in it: "SA count=2 tx=0", and some lines for each."""
    return Path(f"/sys/kernel/debug/netdevsim/netdevsim{number}/ports/0/ipsec").read_text()


def index_of(ns: Netns, device: str) -> int:
    """Its ifindex."""
    return ns.call(socket.if_nametoindex, device)


def with_xfrm(ns: Netns, use: Callable[[AsyncXfrmSocket], Coroutine[Any, Any, Any]]) -> Any:
    """Runs `use` with the IPsec databases of a namespace."""

    async def run() -> Any:
        async with AsyncXfrmSocket(ns.name) as xfrm:
            return await use(xfrm)

    return asyncio.run(run())


def sa(direction: Direction, key: bytes, family: Family = 4, **more: Any) -> SAConfig:
    """One end of gw1's tunnel for a family (outside and inside), AES-GCM-128 with ESN."""
    us, peer = wan_address(1, family), wan_address(2, family)
    ends: dict[str, Any] = {"src": us, "dst": peer, "spi": SPI_OUT, "replay_window": 0}
    if direction is Direction.IN:
        ends = {"src": peer, "dst": us, "spi": SPI_IN, "replay_window": 128}
    aead = Aead("rfc4106(gcm(aes))", key)
    return SAConfig(**({"aead": aead, "direction": direction, "reqid": reqid(family), "esn": True} | ends | more))


def reqid(family: Family) -> int:
    """Of the tunnel for a family, whose name is then reqid-1 or reqid-2."""
    return 1 if family == 4 else 2


def policies(topo: TwoGateways, family: Family = 4) -> list[Policy]:
    """gw1's policies for a family, all in software."""
    number = 2 if family == 4 else 10
    us, peer = wan_address(1, family), wan_address(2, family)
    found = []
    for direction in (Direction.OUT, Direction.IN, Direction.FORWARD):
        pair, ends = (lan_prefix(1, family), lan_prefix(2, family)), (us, peer)
        if direction is not Direction.OUT:
            pair, ends = pair[::-1], ends[::-1]
        template = Template(number, *ends, 50, 0, reqid(family), Mode.TUNNEL)
        found.append(Policy(Selector(number, *pair), direction, 0, 1000, 0, (template,)))
    return found


def offloaded(those: Iterable[Policy], device: int, *directions: Direction) -> list[Policy]:
    """The same, with those of these directions in the device."""
    return [each._replace(offload=Offload(device, PACKET)) if each.direction in directions else each for each in those]


IN_AND_OUT = (Direction.IN, Direction.OUT)


def secure(
    topo: TwoGateways,
    sas: Iterable[Direction] = IN_AND_OUT,
    spd: Iterable[Direction] = IN_AND_OUT,
    kind: int = PACKET,
    family: Family = 4,
) -> None:
    """A tunnel of gw1 whose SAs and policies of these directions are in its wan0; gw2 has it in software."""
    device, key = index_of(topo.gw1, "wan0"), secrets.token_bytes(20)
    chosen, in_device = tuple(sas), tuple(spd)

    async def install(xfrm: AsyncXfrmSocket) -> None:
        for direction, bits in ((Direction.OUT, 0), (Direction.IN, 2)):
            offload = Offload(device, kind | bits) if direction in chosen else None
            await xfrm.add_sa(replace(sa(direction, key, family), offload=offload))
        for policy in offloaded(policies(topo, family), device, *in_device):
            await xfrm.add_policy(policy)

    async def mirror(xfrm: AsyncXfrmSocket) -> None:
        out, inward = sa(Direction.OUT, key, family), sa(Direction.IN, key, family)
        await xfrm.add_sa(replace(inward, src=out.src, dst=out.dst, spi=out.spi))
        await xfrm.add_sa(replace(out, src=inward.src, dst=inward.dst, spi=inward.spi))
        turned = {Direction.OUT: (Direction.IN, Direction.FORWARD), Direction.IN: (Direction.OUT,)}
        for policy in policies(topo, family):
            for direction in turned.get(policy.direction, ()):
                await xfrm.add_policy(policy._replace(direction=direction))

    with_xfrm(topo.gw1, install)
    with_xfrm(topo.gw2, mirror)


# --- a network with espsims -------------------------------------------------------------------------------------------


@contextmanager
def offloading(families: tuple[Family, ...] = (4,), *, lan: bool = False) -> Iterator[TwoGateways]:
    """gw1's WAN, and with `lan` its LAN too, on espsims. gw2 counts plaintext (flowfast/lab/plaintext.py)."""
    wires = EspSims(pairs=2 if lan else 1)
    try:
        with two_gateways("policy", families=families, wan=wires, lan=wires if lan else None) as topo:
            watch_plaintext(topo.gw2, 1)
            yield topo
    finally:
        wires.close()


def there(topo: TwoGateways, family: Family = 4, **more: Any) -> int:
    """UDP from h1 to h2, each packet answered (oneshot.to_and_fro); returns h1's port."""
    return to_and_fro(topo.h1, topo.h2, topo.host_address(2, family), **{"rounds": 100} | more)


def back(topo: TwoGateways, family: Family = 4, **more: Any) -> int:
    """The same from h2 to h1."""
    return to_and_fro(topo.h2, topo.h1, topo.host_address(1, family), **{"rounds": 100} | more)


def rows(ns: Netns, kind: str, *config: str) -> list[dict[str, Any]]:
    """What `flowfast show KIND [CONFIG]` lists in a namespace."""
    found: list[dict[str, Any]] = json.loads(flowfast(ns, "show", kind, *config, "--json"))["rows"]
    return found
