"""Routes as the kernel answers them, and the fake."""

from struct import pack
from typing import Any

import pytest

from flowfast.kernel import routes
from flowfast.kernel.netlink import attribute, nested
from flowfast.kernel.routes import FakeRoutes, RealRoutes, decode_route
from flowfast.model.errors import DecodeError, KernelError
from flowfast.model.route import Route


def message(family: int, kind: int, *attributes: bytes) -> memoryview:
    return memoryview(pack("=BBBBBBBBI", family, 32, 0, 0, 254, 0, 0, kind, 0x200) + b"".join(attributes))


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def test_a_route_by_a_gateway_with_its_mtu() -> None:
    metrics = nested(8, attribute(2, u32(1400)), attribute(8, u32(1360)))
    gateway = attribute(5, bytes((192, 0, 2, 9)))
    assert decode_route(message(2, 1, attribute(4, u32(7)), gateway, metrics)) == Route(7, "192.0.2.9", 1400)


def test_a_route_to_the_router_itself_and_one_over_ipv6() -> None:
    assert decode_route(message(2, 2, attribute(4, u32(1)))) == Route(1, local=True)
    gateway = attribute(5, bytes.fromhex("fe80" + "0" * 27 + "1"))
    assert decode_route(message(10, 1, attribute(4, u32(2)), gateway)) == Route(2, "fe80::1")


def test_a_route_to_no_device_is_no_way() -> None:
    assert decode_route(message(2, 7)) is None
    with pytest.raises(DecodeError, match="less than its header"):
        decode_route(memoryview(b"\2\0"))


class _Kernel:
    """Answers the one request, and keeps it."""

    sent = b""

    def __init__(self, answer: list[bytes] | KernelError) -> None:
        self.answer = answer

    def __call__(self, _family: int) -> "_Kernel":
        return self

    def __enter__(self) -> "_Kernel":
        return self

    def __exit__(self, *_: object) -> None: ...

    def request(self, _kind: int, body: bytes, *, what: str) -> list[bytes]:
        self.sent = body
        if isinstance(self.answer, KernelError):
            raise self.answer
        return self.answer


def ask(monkeypatch: pytest.MonkeyPatch, answer: Any, *question: Any) -> tuple[Route | None, bytes]:
    kernel = _Kernel(answer)
    monkeypatch.setattr(routes, "Netlink", kernel)
    return RealRoutes().route(*question), kernel.sent


def test_a_forwarded_packet_is_asked_for_with_its_source_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    found, sent = ask(monkeypatch, [bytes(message(2, 1, attribute(4, u32(3))))], "10.2.0.9", "10.1.0.5", 2)
    assert found == Route(3)
    assert sent[:3] == bytes((2, 32, 32))
    assert attribute(1, bytes((10, 2, 0, 9))) in sent
    assert attribute(2, bytes((10, 1, 0, 5))) in sent
    assert attribute(3, u32(2)) in sent


@pytest.mark.parametrize("code", sorted(routes.NO_WAY))
def test_what_cannot_be_reached_has_no_route(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    assert ask(monkeypatch, KernelError("no", code), "10.2.0.9")[0] is None


def test_a_kernel_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelError):
        ask(monkeypatch, KernelError("rtnetlink: Operation not permitted", 1), "10.2.0.9")
    with pytest.raises(DecodeError, match="route to fd00::1"):
        ask(monkeypatch, [bytes(message(10, 1, attribute(4, b"\1")))], "fd00::1")


def test_the_kernel_of_this_machine_knows_the_way_to_itself() -> None:
    found = RealRoutes().route("127.0.0.1")
    assert found is not None
    assert found.local


def test_the_fake_takes_the_longest_prefix() -> None:
    fake = FakeRoutes({"0.0.0.0/0": Route(2), "10.1.0.0/16": Route(1), "::/0": Route(4)})
    assert fake.route("10.1.2.3") == Route(1)
    assert fake.route("10.2.2.3", "10.1.0.1", 1) == Route(2)
    assert fake.route("fd00::1") == Route(4)
    assert FakeRoutes().route("10.1.2.3") is None
