"""NAPIs, sizes, rings, channels, coalescing and modules: what the kernel says, decoded, and what is asked of it."""

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack
from typing import Any, Self

import pytest

from flowfast.kernel import modules, napi, nic_settings, sizes
from flowfast.kernel.fake import FakeKernel
from flowfast.kernel.features import FakeBulk
from flowfast.kernel.genl import Attributes
from flowfast.kernel.knobs import FakeKnobs
from flowfast.kernel.modules import ModuleKnob
from flowfast.kernel.napi import NapiKnob, napis
from flowfast.kernel.netlink import attribute, attributes, nested
from flowfast.kernel.nic_settings import NicKnob
from flowfast.model.bulk import DeviceKnobs, knob_of
from flowfast.model.errors import KernelError
from flowfast.model.knob import HIDDEN, Knob, KnobKind
from flowfast.model.link import Link

LAN = Link(7, "lan0", None, True, 1500)
FLUSH = knob_of("lan0", "napi 8193 gro_flush_timeout")


def made(*parts: bytes) -> Attributes:
    return dict(attributes(memoryview(b"".join(parts))))


class Family:
    """Answers in the place of generic netlink: messages by command, and what was asked."""

    def __init__(self, commands: Iterable[int], answers: dict[int, list[Attributes]]) -> None:
        self.commands, self.answers = frozenset(commands), answers
        self.asked: list[tuple[int, dict[int, bytes]]] = []

    def __call__(self, _name: str) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def request(self, command: int, body: bytes) -> list[Attributes]:
        asked = {kind: bytes(value) for kind, value in attributes(memoryview(body))}
        self.asked.append((command, asked))
        answers = self.answers.get(command, [])
        return [each for each in answers if command != 11 or 2 not in asked or bytes(each[2]) == asked[2]]

    def dump(self, command: int, body: bytes, decode: Callable[[Attributes], Iterable[Any]]) -> list[Any]:
        return [item for answer in self.request(command, body) for item in decode(answer)]


def one_napi(number: int, flush: bytes, *more: bytes) -> Attributes:
    return made(
        attribute(1, pack("=I", 7)), attribute(2, pack("=I", number)), attribute(5, pack("=I", 2)), flush, *more
    )


def netdev(monkeypatch: pytest.MonkeyPatch, commands: Iterable[int], *answers: Attributes) -> Family:
    family = Family(commands, {11: list(answers)})
    monkeypatch.setattr(napi, "Genl", family)
    monkeypatch.setattr(napi, "if_nametoindex", lambda _name: 7)
    return family


def test_each_napi_has_settings_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    long = one_napi(8194, attribute(6, pack("=Q", 5_000_000_000)), attribute(8, pack("=I", 1)))
    netdev(monkeypatch, (11, 14), one_napi(8193, attribute(6, pack("=I", 20_000))), long)
    assert napis() == {
        7: {
            "napi 8193 napi_defer_hard_irqs": "2",
            "napi 8193 gro_flush_timeout": "20000",
            "napi 8194 napi_defer_hard_irqs": "2",
            "napi 8194 gro_flush_timeout": "5000000000",
            "napi 8194 threaded": "1",
        }
    }


def test_a_kernel_that_sets_none_of_them_has_files(monkeypatch: pytest.MonkeyPatch) -> None:
    netdev(monkeypatch, (11,), made(attribute(1, pack("=I", 7)), attribute(2, pack("=I", 8193))))
    assert napis() is None
    assert NapiKnob().read(FLUSH) is None


def test_a_napi_hides_while_its_device_is_down_and_is_gone_where_there_are_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family = netdev(monkeypatch, (11, 14))
    assert NapiKnob().read(FLUSH) == HIDDEN
    family.answers[11] = [one_napi(8200, attribute(6, pack("=I", 0)))]
    assert NapiKnob().read(FLUSH) is None
    family.answers[11] = [one_napi(8193, attribute(6, pack("=I", 9)))]
    assert NapiKnob().read(FLUSH) == "9"


def test_a_napis_setting_is_set_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    family = netdev(monkeypatch, (11, 14))
    NapiKnob().write(FLUSH, "20000")
    assert family.asked == [(14, {2: pack("=I", 8193), 6: pack("=Q", 20_000)})]


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, pack("=I", value))


HEADER = nested(1, u32(1, 7), attribute(2, b"lan0\0"))


def ethtool(monkeypatch: pytest.MonkeyPatch) -> Family:
    family = Family(
        (),
        {
            15: [made(HEADER, u32(2, 4096), u32(5, 0), u32(6, 256), u32(9, 256))],
            17: [made(HEADER, u32(5, 4), u32(9, 2))],
            19: [made(HEADER, u32(2, 3), attribute(11, b"\1"))],
        },
    )
    monkeypatch.setattr(nic_settings, "Genl", family)
    return family


def test_what_a_driver_has_is_read_and_what_it_cannot_set_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    ethtool(monkeypatch)
    assert nic_settings.nic_settings() == {
        7: {"rings rx": "256", "channels combined": "2", "coalesce rx-usecs": "3", "coalesce adaptive-rx": "on"}
    }
    assert NicKnob().read(Knob(KnobKind.NIC, "lan0", "rings rx")) == "256"
    assert NicKnob().read(Knob(KnobKind.NIC, "lan0", "rings tx")) is None


@pytest.mark.parametrize(
    ("name", "value", "command", "wanted"),
    [
        ("rings rx", "4096", 16, {6: pack("=I", 4096)}),
        ("channels combined", "4", 18, {9: pack("=I", 4)}),
        ("coalesce adaptive-rx", "off", 20, {11: b"\0"}),
    ],
)
def test_one_setting_is_set_and_the_driver_keeps_the_others(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, command: int, wanted: dict[int, bytes]
) -> None:
    family = ethtool(monkeypatch)
    NicKnob().write(Knob(KnobKind.NIC, "lan0", name), value)
    ((asked, parts),) = family.asked
    assert asked == command
    assert parts.pop(1) == attribute(2, b"lan0\0")
    assert parts == wanted


IPV4 = {58: 64, 41: 63}


class Rtnetlink:
    """A device's limits as the kernel keeps them: a general one of up to 64 KiB is that of IPv4, too."""

    def __init__(self) -> None:
        self.limits = {58: 65536, 64: 40000, 41: 65536, 63: 65536}

    @contextmanager
    def open(self, _family: int) -> Iterator[Self]:
        yield self

    def request(self, kind: int, body: bytes, *, what: str) -> list[bytes]:
        if kind == 18:
            return [bytes(16) + b"".join(u32(at, value) for at, value in self.limits.items())]
        assert body[4:8] == pack("=i", 7), what
        asked = {at: int.from_bytes(value, "little") for at, value in attributes(memoryview(body)[16:])}
        for at in (41, 58, 63, 64):  # the order of do_setlink()
            if at in asked:
                self.limits[at] = asked[at]
                if at in IPV4 and asked[at] <= 65536:
                    self.limits[IPV4[at]] = asked[at]
        return []


def test_a_limit_is_set_and_the_one_of_ipv4_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Rtnetlink()
    monkeypatch.setattr(sizes, "Netlink", kernel.open)
    monkeypatch.setattr(sizes, "if_nametoindex", lambda _name: 7)
    knob = sizes.SizeKnob()
    assert knob.read(Knob(KnobKind.SIZE, "lan0", "gro_ipv4_max_size")) == "40000"
    knob.write(Knob(KnobKind.SIZE, "lan0", "gro_max_size"), "30000")
    assert kernel.limits == {58: 30000, 64: 40000, 41: 65536, 63: 65536}
    knob.write(Knob(KnobKind.SIZE, "lan0", "gso_ipv4_max_size"), "20000")
    assert kernel.limits == {58: 30000, 64: 40000, 41: 65536, 63: 20000}


def test_a_module_is_loaded_built_in_or_absent(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    knob, reader = Knob(KnobKind.MODULE, "", "esp4_offload"), ModuleKnob(tmp_path)
    assert reader.read(knob) is None
    (tmp_path / "proc/modules").write_text("xfrm_user 1 0 - Live 0x0\n")
    assert reader.read(knob) == "absent"
    (tmp_path / "sys/module/esp4_offload").mkdir(parents=True)
    assert reader.read(knob) == "loaded"


def test_a_module_that_is_in_use_is_refused_in_rmmods_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rmmod = tmp_path / "rmmod"
    rmmod.write_text('#!/bin/sh\necho "rmmod: ERROR: Module $1 is in use" >&2; exit 1\n')
    rmmod.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(KernelError, match="Module esp4_offload is in use") as refused:
        ModuleKnob().write(Knob(KnobKind.MODULE, "", "esp4_offload"), modules.ABSENT)
    assert refused.value.code == errno.EBUSY


def test_the_fake_shows_what_was_turned_and_makes_napis_anew() -> None:
    channels = knob_of("lan0", "channels combined")
    knobs = FakeKnobs({channels: "2", FLUSH: "0"})
    kernel = FakeKernel(
        knobs=knobs, bulk=FakeBulk({"lan0": DeviceKnobs({"channels combined": "2", FLUSH.name: "0", "rx-gro": "on"})})
    )
    knobs.turn(FLUSH, "20000")
    assert kernel.bulk.look([LAN])["lan0"].napi("gro_flush_timeout") == [FLUSH.name]
    assert kernel.bulk.look([LAN])["lan0"].values[FLUSH.name] == "20000"
    knobs.turn(channels, "1")
    (renewed,) = kernel.bulk.look([LAN])["lan0"].napi("gro_flush_timeout")
    assert renewed != FLUSH.name
    assert kernel.bulk.look([LAN])["lan0"].values == {"channels combined": "1", renewed: "0", "rx-gro": "on"}
