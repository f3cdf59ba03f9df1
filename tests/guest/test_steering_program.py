"""The XDP program by itself, in BPF_PROG_TEST_RUN: what it makes of whole and broken packets, and what it costs."""

import random
import socket
import struct
from collections.abc import Iterator
from os import sched_setaffinity

import pytest

from flowfast.kernel import libbpf
from flowfast.kernel.buckets import GOLDEN, WAYS, Buckets, Slots, bucket_of
from flowfast.kernel.xdp import CPUS, SAS, SPREAD, ProgramKnob
from flowfast.lab.netns import Netns
from flowfast.model.errors import KernelError
from flowfast.model.knob import Knob, KnobKind
from flowfast.model.steering import GENERIC, SLOTS
from tests.guest.esp_packets import OTHERS, SPI, UNKNOWN, WHOLE, broken, esp, ipv4, is_steered

PASS, REDIRECT = 2, 4
FOUR_CPUS = pytest.mark.guest(images=["debian14"], nics=3, cpus=4)
COUNTED = pytest.mark.guest(images=["debian14"], icount=True)
THERE = 1
"""The CPU of the SA; the test runs on CPU 0."""


def bucketmates(spi: int) -> list[int]:
    """SPIs that fill its bucket in front of it: no packet takes the program longer than those of the last one."""
    (read,) = struct.unpack("=I", spi.to_bytes(4))
    hashed, back = read * GOLDEN % 2**32, pow(GOLDEN, -1, 2**32)
    mates = [int.from_bytes(struct.pack("=I", (hashed ^ nth) * back % 2**32)) for nth in range(1, WAYS)]
    assert {bucket_of(mate) for mate in mates} == {bucket_of(spi)}
    return mates


@pytest.fixture
def programs() -> Iterator[libbpf.Loaded]:
    sched_setaffinity(0, {0})
    possible = libbpf.possible_cpus()
    with libbpf.loaded("steer", entries={CPUS: max(possible, THERE + 1)}) as made:
        if possible > THERE:
            made.map(CPUS).update(struct.pack("=I", THERE), struct.pack("=II", 64, 0))
        with Buckets(made.map(SAS).fd) as buckets:
            wanted = dict.fromkeys([*bucketmates(SPI), SPI], THERE)
            assert buckets.hold(wanted)
            assert not buckets.hold(wanted)
            assert buckets.held() == wanted
        with Slots(made.map(SPREAD).fd) as slots:
            assert slots.held() == (None,) * SLOTS
            assert slots.hold([THERE] * SLOTS)
            assert not slots.hold([THERE] * SLOTS)
        yield made


@FOUR_CPUS
def test_esp_of_a_known_sa_goes_to_its_cpu(programs: libbpf.Loaded) -> None:
    program = programs.program("flowfast_wan3")
    for frame in (*WHOLE, *(ipv4(esp(mate), 50) for mate in bucketmates(SPI))):
        assert program.run(frame)[0] == REDIRECT, frame.hex()
    for frame in OTHERS:
        assert program.run(frame)[0] == PASS, frame.hex()


@FOUR_CPUS
def test_what_is_on_its_cpu_already_passes(programs: libbpf.Loaded) -> None:
    sched_setaffinity(0, {THERE})
    assert {programs.program("flowfast_wan3").run(frame)[0] for frame in WHOLE} == {PASS}


def _modes() -> list[str | None]:
    """What the knob says after each turn, on a veth, which has native XDP, too; last with another's program there."""
    knob, wan, lan = Knob(KnobKind.XDP, "v0", "program"), "flowfast_wan3", "flowfast_lan3"
    held = []
    for value in (GENERIC + wan, wan, GENERIC + lan, lan, "none", GENERIC + wan, "none"):
        ProgramKnob().write(knob, value)
        held.append(ProgramKnob().read(knob))
    index = socket.if_nametoindex("v0")
    with libbpf.closing_program(pass_all()) as foreign:
        libbpf.attach_xdp(index, foreign, generic=True)
    for value in (wan, GENERIC + wan, "none"):
        with pytest.raises(KernelError, match="another XDP program is there: generic nothing"):
            ProgramKnob().write(knob, value)
    held.append(ProgramKnob().read(knob))
    libbpf.attach_xdp(index, None, generic=True)
    return held


@FOUR_CPUS
def test_a_program_changes_its_mode_and_another_s_stays() -> None:
    with Netns("modes") as ns:
        ns.run(["ip", "link", "add", "v0", "type", "veth", "peer", "v1"])
        wan, lan = "flowfast_wan3", "flowfast_lan3"
        turns = [GENERIC + wan, wan, GENERIC + lan, lan, "none", GENERIC + wan, "none"]
        assert ns.call(_modes) == [*turns, "generic nothing"]


def disagreements(programs: libbpf.Loaded, count: int) -> list[str]:
    """Broken frames with another verdict than that of a careful reader."""
    run, draw = programs.program("flowfast_wan3").run, random.Random(count)  # noqa: S311 - no secret
    found, steered = [], 0
    for _ in range(count):
        frame = broken(draw)
        expected = is_steered(frame)
        steered += expected
        if run(frame)[0] != (REDIRECT if expected else PASS):
            found.append(frame.hex())
    assert 0.2 * count < steered < 0.8 * count  # neither sort is missing
    return found


@FOUR_CPUS
def test_broken_packets_pass_to_the_stack(programs: libbpf.Loaded) -> None:
    assert disagreements(programs, 20_000) == []


@FOUR_CPUS
@pytest.mark.long(seconds=600)
def test_a_million_broken_packets_pass_to_the_stack(programs: libbpf.Loaded) -> None:
    assert disagreements(programs, 1_000_000) == []


@FOUR_CPUS
def test_a_flow_of_the_lan_goes_to_one_cpu_and_whatever_it_is_nothing_is_dropped(programs: libbpf.Loaded) -> None:
    program = programs.program("flowfast_lan3")
    assert program.run(WHOLE[1])[0] == REDIRECT
    for_many, arp = b"\x01" + WHOLE[1][1:], OTHERS[-2]
    for frame in (for_many, arp):
        assert program.run(frame)[0] == PASS
    draw = random.Random(7)  # noqa: S311 - no secret
    assert {program.run(broken(draw))[0] for _ in range(5000)} == {PASS, REDIRECT}


def instructions(program: libbpf.Program, frame: bytes) -> int:
    """Of one run. A batch is far shorter than the time between two timer ticks (4 ms are four million instructions), so
    most are free of others' work: the least is exact, and several agree on it.
    """
    taken = sorted(program.run(frame, 1000)[1] for _ in range(30))
    assert taken[5] - taken[0] <= 1, taken
    return taken[0]


def pass_all() -> libbpf.Program:
    """A program that returns XDP_PASS: what it takes to run one at all."""
    return libbpf.load_xdp("nothing", struct.pack("<BBhi", 0xB7, 0, 0, PASS) + struct.pack("<BBhi", 0x95, 0, 0, 0))


PATHS = {
    "ESP": WHOLE[0],
    "ESP in UDP": WHOLE[1],
    "ESP, IPv6": WHOLE[2],
    "ESP in UDP, IPv6": WHOLE[3],
    "unknown SA": ipv4(esp(UNKNOWN), 50),
    "ARP": OTHERS[-2],
}


@COUNTED
@pytest.mark.parametrize("name", ["flowfast_wan3", "flowfast_lan3"])
def test_it_takes_fewer_than_150_instructions(programs: libbpf.Loaded, name: str) -> None:
    """Less what the test run takes itself. CPU 1 is not there: the lookup of the cpumap is counted, the eight
    instructions that note its result are not, and so are added, also to what is not redirected.
    """
    program = programs.program(name)
    with libbpf.closing_program(pass_all()) as nothing:
        empty = instructions(nothing, WHOLE[0])
    taken = {path: instructions(program, frame) - empty + 8 for path, frame in PATHS.items()}
    print(name, taken)
    assert 20 < min(taken.values()) < max(taken.values()) < 140, taken  # 150 are promised
