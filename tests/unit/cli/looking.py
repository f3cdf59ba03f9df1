"""A router in memory for explain, show and top: one tunnel, two connections through it, one past it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from flowfast.apply import converge
from flowfast.cli import common, sight
from flowfast.config.load import load
from flowfast.kernel.conntrack import FakeConntrack
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.links import FakeLinks
from flowfast.kernel.nft import FakeNft
from flowfast.kernel.routes import FakeRoutes
from flowfast.kernel.system import FakeSystem
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.kernel.xfrm.fake import FakeXfrm
from flowfast.model.route import Route
from flowfast.model.sa import Direction
from flowfast.model.state import Flow, Status, TcpState
from flowfast.observe import observe
from flowfast.plan.planner import plan
from tests.unit.plan.router import LAN, PEER, US, WAN, policies

Flowfast = Callable[..., Result]

ANSWERED = Status.SEEN_REPLY | Status.ASSURED | Status.CONFIRMED
HTTPS = Flow(
    *(2, 6, "10.1.0.5", "10.2.0.9", 50000, 443, "10.2.0.9", "10.1.0.5", 443, 50000),
    *(True, False, True, (1000, 90000), (20, 70)),
    status=ANSWERED | Status.OFFLOAD,
)
FTP = replace(
    HTTPS, dport=21, reply_sport=21, sport=50001, reply_dport=50001, offloaded=False, bytes=(10, 20), packets=(1, 2)
)
FTP = replace(FTP, status=ANSWERED, tcp_state=TcpState.ESTABLISHED, helper="ftp")
DNS = Flow(2, 17, "10.1.0.5", "198.51.100.7", 5353, 53, "198.51.100.7", "10.1.0.5", 53, 5353, False, False, False)
OUT, IN = make_sa(US, PEER, 0xC0000001), make_sa(PEER, US, 0xC0000002, direction=Direction.IN)


def fake_kernel() -> FakeKernel:
    return FakeKernel(
        xfrm=FakeXfrm([OUT, IN], policies()),
        links=FakeLinks([LAN, WAN]),
        nft=FakeNft(devices={"lan0", "wan0"}),
        conntrack=FakeConntrack([DNS, FTP, HTTPS]),
        system=FakeSystem(sysctls={"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}),
    )


def fake_routes() -> FakeRoutes:
    return FakeRoutes({"10.1.0.0/16": Route(1), "0.0.0.0/0": Route(2)})


def commands(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Flowfast:
    """Runs a command against the kernel, on a machine without a config of its own."""
    for module in (common, sight):
        monkeypatch.setattr(module, "real_kernel", lambda: kernel)
    monkeypatch.setattr(common, "CONFIG", str(tmp_path / "none.yaml"))
    monkeypatch.setattr(sight, "RealRoutes", fake_routes)

    def run(name: str, *arguments: str) -> Result:
        command: click.Command = getattr(import_module(f"flowfast.cli.{name}"), name)
        return CliRunner().invoke(command, arguments)

    return run


def applied(kernel: FakeKernel, config: str) -> None:
    """What `flowfast apply` leaves."""

    async def use() -> None:
        state = await observe(kernel, await kernel.probe.features())
        await converge(kernel, plan(state, load(config).config), state)

    asyncio.run(use())
