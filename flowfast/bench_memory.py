"""What a controller holds of a router with many SAs: rounds over a recorded dump, in a process of its own.

Run as `python -m flowfast.bench_memory TUNNELS SAS`; prints bytes as JSON. The dump is decoded as one of the kernel's
is, from a file, a message at a time, and every SA has carried something between any two rounds: no object of one round
is there for the next. So the most that was held is what a router's controller holds, short of the kernel's sockets.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from struct import Struct
from typing import BinaryIO, TypeVar

from flowfast.bench import CONFIG, fake_hub, policies, sa_pair
from flowfast.controller import Controller
from flowfast.kernel.xfrm import Aead, SAConfig, encode
from flowfast.kernel.xfrm.attributes import Shapes
from flowfast.kernel.xfrm.fake import FakeXfrm
from flowfast.kernel.xfrm.socket import policy_reader, sa_reader
from flowfast.kernel.xfrm.uapi import SA_DIR_OUT, USERSA_INFO, Attr
from flowfast.memory import give_back
from flowfast.metrics.books import Books
from flowfast.metrics.exporter import Exporter
from flowfast.metrics.store import Store
from flowfast.model.errors import FlowfastError
from flowfast.model.garbage import collector_paused
from flowfast.model.sa import SA, Policy

ROUNDS = 3
_LENGTH = Struct("=I")
_COUNTED = Struct("=QQQQ")
_COUNTED_AT = 56 + 24 + 16 + 64
"""Where struct xfrm_usersa_info has its xfrm_lifetime_cur: behind selector, id, source and limits."""
_SEQUENCES = Struct("=II")
_SEQUENCE_AT = 4
"""Where struct xfrm_replay_state_esn has its oseq, and seq behind it."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held:
    """Resident memory in bytes: of the process before there were SAs, at the end, and the most."""

    start: int
    end: int
    peak: int


def held(tunnels: int, sas: int) -> Held:
    """Measured in a process of its own. Raises FlowfastError where that fails."""
    command = [sys.executable, "-m", __name__, str(tunnels), str(sas)]
    folder = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise FlowfastError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return Held(**json.loads(done.stdout))


class _Recorded(FakeXfrm):
    """An Xfrm whose dumps come out of files."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder, self._round, self._shapes = folder, 0, Shapes()
        self._policies_before: dict[int, Policy] = {}

    async def sas(self, *, proto: int = 0, src: str | None = None, dst: str | None = None) -> list[SA]:
        self._round += 1
        return await self._read("sas", sa_reader(), self._carry)

    async def policies(self) -> list[Policy]:
        before, self._policies_before = self._policies_before, {}
        found = await self._read("policies", policy_reader(before), lambda _body, _number: None)
        self._policies_before = {policy.policy_index: policy for policy in found}
        return found

    def _carry(self, body: bytearray, number: int) -> None:
        octets, packets, at = self._round * 100_000 + number, self._round * 1000 + number, 1_764_000_000 + number // 100
        _COUNTED.pack_into(body, _COUNTED_AT, octets, packets, at, at + self._round)
        attributes = self._shapes.attributes(memoryview(body), USERSA_INFO.size)
        sent = body[attributes[Attr.SA_DIR]] == SA_DIR_OUT
        numbers = (packets, 0) if sent else (0, packets)
        _SEQUENCES.pack_into(body, attributes[Attr.REPLAY_ESN_VAL] + _SEQUENCE_AT, *numbers)

    async def _read(
        self, name: str, read: Callable[[memoryview], T], change: Callable[[bytearray, int], None]
    ) -> list[T]:
        found = []
        with collector_paused(), (self._folder / name).open("rb") as file:
            for number, body in enumerate(_messages(file)):
                change(body, number)
                found.append(read(memoryview(body)))
                if not number % 64:
                    await asyncio.sleep(0)
        return found


def _messages(file: BinaryIO) -> Iterator[bytearray]:
    while head := file.read(_LENGTH.size):
        yield bytearray(file.read(_LENGTH.unpack(head)[0]))


def _record(folder: Path, tunnels: int, sas: int) -> None:
    with (folder / "sas").open("wb") as file:
        for generation in range(sas // 2):
            for number in range(tunnels):
                for sa in sa_pair(number, generation):
                    config = SAConfig(
                        src=sa.src, dst=sa.dst, spi=sa.spi, reqid=sa.reqid, esn=True, replay_window=128,
                        aead=Aead("rfc4106(gcm(aes))", bytes(20)), direction=sa.direction, output_mark=sa.output_mark,
                    )  # fmt: skip
                    _write(file, encode.sa(config))
    with (folder / "policies").open("wb") as file:
        for index, policy in enumerate(policy for number in range(tunnels) for policy in policies(number)):
            _write(file, encode.policy(policy._replace(policy_index=8 * (index + 1))))


def _write(file: BinaryIO, body: bytearray) -> None:
    file.write(_LENGTH.pack(len(body)) + body)


async def _rounds(folder: Path) -> None:
    kernel = fake_hub(0)
    kernel.xfrm = _Recorded(folder)
    exporter = Exporter(CONFIG.exporter.listen, per_sa=True)
    books = Books(Store(folder / "counts.jsonl"))
    features = await kernel.probe.features()
    controller = Controller(kernel, CONFIG, features, on_snapshot=exporter.publish, books=books)
    for _ in range(ROUNDS):
        await controller.round()
        if len(exporter.scraped(60.0).gzipped) < 1000:
            raise FlowfastError("a round was published without its tunnels: report this as a bug")


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def main(tunnels: int, sas: int) -> None:
    """Prints what this process held. The dump is made by a child, of which no memory is left."""
    give_back()
    with tempfile.TemporaryDirectory(prefix="flowfast-bench-") as name:
        child = os.fork()
        if child == 0:
            _record(Path(name), tunnels, sas)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise FlowfastError("the dump could not be recorded")
        start = _resident("VmRSS")
        asyncio.run(_rounds(Path(name)))
        print(json.dumps(asdict(Held(start, _resident("VmRSS"), _resident("VmHWM")))))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
