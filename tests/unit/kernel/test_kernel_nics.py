"""What ethtool and devlink say of devices, decoded; on messages made up as the kernel lays them out."""

import asyncio
import errno
from collections.abc import Callable, Iterable, Iterator
from struct import pack
from typing import Any, Self

import pytest

from flowfast.kernel import nics
from flowfast.kernel.genl import Attributes
from flowfast.kernel.netlink import attribute, attributes, nested
from flowfast.kernel.nics import FakeNics, RealNics
from flowfast.model.errors import KernelError
from flowfast.model.link import Link
from flowfast.model.nic import ESP, ESP_FEATURES, Eswitch, Nic

CSUM, GSO = ESP_FEATURES[1:]
BITS = {ESP: 50, CSUM: 51, GSO: 31}
"""As in Linux 6.18: in two words, and not in order."""
LINKS = (Link(1, "lo", None, True, 65536), Link(7, "eth0", None, True, 1500, driver="mlx5_core"))


def made(*parts: bytes) -> Attributes:
    return dict(attributes(memoryview(b"".join(parts))))


def strings() -> Attributes:
    names = {0: "tx-scatter-gather"} | {bit: name for name, bit in BITS.items()}
    one = [nested(1, attribute(1, pack("=I", bit)), attribute(2, name.encode() + b"\0")) for bit, name in names.items()]
    return made(nested(2, nested(1, attribute(1, pack("=I", 4)), attribute(2, pack("=I", 64)), nested(3, *one))))


def bitset(kind: int, *names: str) -> bytes:
    value = sum(1 << BITS[name] for name in names) | 1
    return nested(kind, attribute(1, b""), attribute(2, pack("=I", 64)), attribute(4, pack("=Q", value)))


def features(ifindex: int, hw: Iterable[str] = (), on: Iterable[str] = ()) -> Attributes:
    return made(nested(1, attribute(1, pack("=I", ifindex))), bitset(2, *hw), bitset(4, *on), bitset(5))


def port(ifindex: int | None, number: int = 1, caps: tuple[int, int] | None = None) -> Attributes:
    parts = [attribute(1, b"pci\0"), attribute(2, b"0000:08:00.0\0"), attribute(3, pack("=I", number))]
    if ifindex is not None:
        parts.append(attribute(6, pack("=I", ifindex)))
    if caps is not None:
        parts.append(nested(145, attribute(4, pack("=II", *caps))))
    return made(*parts)


class Scripted:
    """Answers in the place of generic netlink: by family and command, messages or an errno."""

    def __init__(self, answers: dict[tuple[str, int], list[Attributes] | int]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, int]] = []

    def __call__(self, family: str) -> "_Family":
        self._say(family, 0)
        return _Family(self, family)

    def _say(self, family: str, command: int) -> list[Attributes]:
        self.asked.append((family, command))
        answer = self.answers.get((family, command), [])
        if isinstance(answer, int):
            raise KernelError(f"{family} {command}", answer)
        return answer


class _Family:
    def __init__(self, script: Scripted, name: str) -> None:
        self._script, self._name = script, name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def request(self, command: int, _body: bytes) -> list[Attributes]:
        return self._script._say(self._name, command)

    def dump(self, command: int, _body: bytes, decode: Callable[[Attributes], Iterator[Any]]) -> list[Any]:
        return [item for found in self._script._say(self._name, command) for item in decode(found)]


def ask(monkeypatch: pytest.MonkeyPatch, **answers: list[Attributes] | int) -> tuple[Nic, ...]:
    """`ethtool_11=[...]`: what command 11 of ethtool answers."""
    known: dict[tuple[str, int], list[Attributes] | int] = {("ethtool", 1): [strings()]}
    for name, answer in answers.items():
        family, _, command = name.partition("_")
        known[family, int(command)] = answer
    monkeypatch.setattr(nics, "Genl", Scripted(known))
    return asyncio.run(RealNics().nics(LINKS))


def test_features_that_are_on_and_those_that_could_be(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [features(1), features(7, hw=(CSUM, GSO), on=(ESP, GSO))]
    (nic,) = ask(monkeypatch, ethtool_11=both)
    assert nic == Nic("eth0", 7, "mlx5_core", on=frozenset({ESP, GSO}), off=frozenset({CSUM}))
    assert nic.enabled


def test_what_devlink_says_of_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [features(7, on=(ESP,))]
    switch = [made(attribute(25, pack("=H", 1)), attribute(62, pack("=B", 1)))]
    ports = [port(None), port(7, 3, caps=(0b1000, 0b1100))]
    (nic,) = ask(monkeypatch, ethtool_11=there, devlink_5=ports, devlink_29=switch)
    assert (nic.handle, nic.port, nic.eswitch, nic.encap) == ("pci/0000:08:00.0", 3, Eswitch.SWITCHDEV, True)
    assert (nic.port_crypto, nic.port_packet) == (False, True)


def test_what_devlink_does_not_say_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [features(7, on=(ESP,))]
    (nic,) = ask(monkeypatch, ethtool_11=there, devlink_5=[port(7)], devlink_29=errno.EOPNOTSUPP)
    assert (nic.eswitch, nic.encap, nic.port_crypto, nic.port_packet) == (None, None, None, None)
    (unknown,) = ask(
        monkeypatch, ethtool_11=there, devlink_5=[port(7)], devlink_29=[made(attribute(25, pack("=H", 9)))]
    )
    assert unknown.eswitch is None
    (without,) = ask(monkeypatch, ethtool_11=there, devlink_0=errno.ENOENT)
    assert without.handle is None


def test_a_kernel_without_ethtool_netlink_or_features_has_no_nics(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(monkeypatch, ethtool_0=errno.ENOENT) == ()
    assert ask(monkeypatch, ethtool_11=errno.EOPNOTSUPP) == ()
    assert ask(monkeypatch, ethtool_1=errno.EOPNOTSUPP, ethtool_11=[features(7, on=(ESP,))]) == ()


def test_devlink_is_not_asked_where_no_device_has_esp(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted({("ethtool", 1): [strings()], ("ethtool", 11): [features(7)]})
    monkeypatch.setattr(nics, "Genl", script)
    real = RealNics()
    assert asyncio.run(real.nics(LINKS)) == asyncio.run(real.nics(LINKS)) == ()
    assert script.asked.count(("ethtool", 1)) == 1  # names are asked for once
    assert all(family == "ethtool" for family, _ in script.asked)


@pytest.mark.parametrize("where", [{"ethtool_11": errno.EIO}, {"devlink_5": errno.EIO}, {"devlink_29": errno.EIO}])
def test_any_other_error_is_told(monkeypatch: pytest.MonkeyPatch, where: dict[str, int]) -> None:
    answers: dict[str, Any] = {"ethtool_11": [features(7, on=(ESP,))], "devlink_5": [port(7)]} | where
    with pytest.raises(KernelError):
        ask(monkeypatch, **answers)


def test_the_fake_knows_devices_by_name() -> None:
    fake = FakeNics([Nic("eth0", 0)])
    fake.change("eth0", on=frozenset({ESP}))
    assert asyncio.run(fake.nics(LINKS)) == (Nic("eth0", 7, on=frozenset({ESP})),)
    assert asyncio.run(fake.nics(LINKS[:1])) == ()
