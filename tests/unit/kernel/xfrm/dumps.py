"""Netlink messages as the kernel would send them, for tests: recorded ones, and ones made from a request's encoding.

A request to add an SA has the layout of a dumped SA, so the encoder's output with counters filled in is a dump.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

from flowfast.kernel.xfrm import uapi
from flowfast.kernel.xfrm.config import Aead, SAConfig
from flowfast.kernel.xfrm.encode import add, sa
from flowfast.kernel.xfrm.uapi import Attr, Msg
from flowfast.model.sa import Direction

RECORDED = Path(__file__).parent / "recorded"
COUNTERS_AT = 16 + 56 + 24 + 16 + 64  # in a NEWSA message: behind header, selector, id, saddr and limits


def recorded(name: str) -> bytes:
    """A dump that was taken in the guest, DONE included."""
    lines = (RECORDED / f"{name}.hex").read_text().splitlines()
    return bytes.fromhex("".join(line for line in lines if not line.startswith("#")))


def message(kind: int, body: bytes | bytearray, *, flags: int = uapi.NLM_F_MULTI, sequence: int = 1) -> bytearray:
    """One netlink message, padded to 4 bytes."""
    out = bytearray(uapi.NLMSGHDR.pack(16 + len(body), kind, flags, sequence, 0))
    out += body
    out += bytes(-len(body) % 4)
    return out


def done(*, flags: int = uapi.NLM_F_MULTI, sequence: int = 1, code: int = 0) -> bytearray:
    """The end of a dump."""
    return message(uapi.NLMSG_DONE, struct.pack("=i", code), flags=flags, sequence=sequence)


def ack(code: int = 0, text: str = "", *, sequence: int = 1) -> bytearray:
    """An acknowledgement, or an error with an extended ack, as NETLINK_CAP_ACK has it."""
    body = bytearray(struct.pack("=i", -code) + bytes(16))
    flags = uapi.NLM_F_CAPPED
    if text:
        add(body, uapi.NLMSGERR_ATTR_MSG, text.encode() + b"\0")
        flags |= uapi.NLM_F_ACK_TLVS
    return message(uapi.NLMSG_ERROR, body, flags=flags, sequence=sequence)


def config(number: int = 1, *, key: bytes = b"\xa1" * 20) -> SAConfig:
    """The SA that most SAs look like: AES-GCM tunnel mode with ESN and an if_id."""
    return SAConfig(
        src="192.0.2.1",
        dst=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        spi=0xC0000000 + number,
        reqid=number,
        aead=Aead("rfc4106(gcm(aes))", key),
        esn=True,
        replay_window=128,
        if_id=7,
        direction=Direction.IN,
    )


def dumped(
    asked: SAConfig,
    *,
    counters: tuple[int, int, int, int] = (1000, 10, 1_700_000_000, 1_700_000_001),
    sequence: int = 1,
) -> bytearray:
    """A NEWSA message of a dump: what was asked for, with counters and XFRMA_LASTUSED."""
    body = sa(asked)
    add(body, Attr.LASTUSED, struct.pack("=Q", counters[3]))
    out = message(Msg.NEWSA, body, sequence=sequence)
    struct.pack_into("=4Q", out, COUNTERS_AT, *counters)
    return out


def datagrams(messages: Iterable[bytes | bytearray], size: int = 32768) -> list[bytearray]:
    """Messages packed as the kernel packs a dump: as many as fit into a datagram."""
    out = [bytearray()]
    for each in messages:
        if len(out[-1]) + len(each) > size:
            out.append(bytearray())
        out[-1] += each
    return out
