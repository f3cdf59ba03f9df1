"""The XDP program by itself, in BPF_PROG_TEST_RUN: what it makes of whole and broken packets, and what it costs."""

import ctypes
import struct
from collections.abc import Iterator
from os import sched_setaffinity

import pytest

from flowfast.kernel import libbpf
from flowfast.kernel.buckets import Buckets
from flowfast.model.steering import SLOTS
from tests.guest.esp_packets import OTHERS, SPI, WHOLE, broken, is_steered

ABORTED, PASS, REDIRECT = 0, 2, 4
FOUR_CPUS = pytest.mark.guest(images=["debian14"], nics=3, cpus=4)
COUNTED = pytest.mark.guest(images=["debian14"], icount=True)
THERE = 1
"""The CPU of the SA; the test runs on CPU 0."""


@pytest.fixture
def programs() -> Iterator[libbpf.Loaded]:
    sched_setaffinity(0, {0})
    possible = libbpf.possible_cpus()
    with libbpf.loaded("steer", entries=dict.fromkeys(("cpus", "sent"), max(possible, THERE + 1))) as made:
        if possible > THERE:
            made.map("cpus").update(struct.pack("=I", THERE), struct.pack("=II", 64, 0))
        with Buckets(made.map("sas").fd) as buckets:
            assert buckets.hold({SPI: THERE})
            assert not buckets.hold({SPI: THERE})
        for slot in range(SLOTS):
            made.map("spread").update(struct.pack("=I", slot), struct.pack("=I", THERE))
        yield made


@FOUR_CPUS
def test_esp_of_a_known_sa_goes_to_its_cpu_and_is_counted(programs: libbpf.Loaded) -> None:
    program = programs.program("flowfast_wan2")
    for frame in WHOLE:
        assert program.run(frame)[0] == REDIRECT, frame.hex()
    for frame in OTHERS:
        assert program.run(frame)[0] == PASS, frame.hex()
    value = programs.map("sent").get(struct.pack("=I", THERE), 8 * libbpf.possible_cpus())
    counts = [packets for (packets,) in struct.iter_unpack("=Q", value)]
    assert counts == [len(WHOLE), *[0] * (libbpf.possible_cpus() - 1)]


@FOUR_CPUS
def test_what_is_on_its_cpu_already_passes(programs: libbpf.Loaded) -> None:
    sched_setaffinity(0, {THERE})
    assert {programs.program("flowfast_wan2").run(frame)[0] for frame in WHOLE} == {PASS}


def disagreements(programs: libbpf.Loaded, seeds: range) -> list[str]:
    """Broken frames with another verdict than that of a careful reader."""
    program = programs.program("flowfast_wan2")
    return [
        frame.hex()
        for frame in map(broken, seeds)
        if program.run(frame)[0] != (REDIRECT if is_steered(frame) else PASS)
    ]


@FOUR_CPUS
def test_broken_packets_pass_to_the_stack(programs: libbpf.Loaded) -> None:
    seeds = range(20_000)
    assert disagreements(programs, seeds) == []
    assert 2000 < sum(is_steered(broken(seed)) for seed in seeds[:10_000]) < 8000  # neither sort is missing


@FOUR_CPUS
@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_a_million_broken_packets_pass_to_the_stack(programs: libbpf.Loaded, part: int) -> None:
    assert disagreements(programs, range(100_000 * part, 100_000 * (part + 1))) == []


@FOUR_CPUS
def test_a_flow_of_the_lan_goes_to_one_cpu_and_whatever_it_is_nothing_is_dropped(programs: libbpf.Loaded) -> None:
    program = programs.program("flowfast_lan2")
    assert program.run(WHOLE[1])[0] == REDIRECT
    for_many, arp = b"\x01" + WHOLE[1][1:], OTHERS[-2]
    for frame in (for_many, arp):
        assert program.run(frame)[0] == PASS
    assert {program.run(broken(seed))[0] for seed in range(5000)} <= {PASS, REDIRECT}


@COUNTED
@pytest.mark.long
@pytest.mark.parametrize("name", ["flowfast_wan2", "flowfast_lan2"])
@pytest.mark.parametrize("number", range(4))
def test_it_takes_fewer_than_150_instructions(programs: libbpf.Loaded, name: str, number: int) -> None:
    """ESP, ESP in UDP, both over IPv4 and IPv6; less what the test run takes itself. CPU 1 is not there: the lookup
    of the cpumap is counted, the eight instructions that note its result are not.
    """
    program, frame, repeat = programs.program(name), WHOLE[number], 20_000
    # The least of some runs: what else the guest has to do meanwhile is counted with the others.
    empty = min(nothing().run(frame, repeat)[1] for _ in range(5))
    taken = min(program.run(frame, repeat)[1] for _ in range(5)) - empty
    assert 20 < taken + 8 < 150, f"{taken} instructions (an empty program: {empty})"


def nothing() -> libbpf.Program:
    """A program that returns XDP_PASS: what it takes to run one at all."""
    code = struct.pack("<BBhi", 0xB7, 0, 0, PASS) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    load = ctypes.CDLL("libbpf.so.1", use_errno=True).bpf_prog_load
    load.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p)
    descriptor = load(6, b"nothing", b"GPL", code, 2, None)  # BPF_PROG_TYPE_XDP
    assert descriptor > 0
    return libbpf.Program(descriptor, "nothing")
