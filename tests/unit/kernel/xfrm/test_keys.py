"""No key byte is left in any Python object: after a dump, a notification, a request, and when each of them fails.

The test knows the key only as numbers that were changed (`Secret`), so that what it looks for is not there by itself.
"""

import asyncio
import base64
import gc
import logging
import os
import struct
import traceback
from collections.abc import Iterator
from socket import AF_UNIX, SOCK_DGRAM, socketpair

import pytest

from flowfast.kernel.xfrm import Aead, Auth, Crypt, Monitor, SAConfig, decode_sas, encode, session
from flowfast.kernel.xfrm.session import XfrmSession
from flowfast.kernel.xfrm.uapi import Attr, Msg
from flowfast.model.errors import DecodeError, KernelError
from tests.unit.kernel.xfrm.dumps import ack, config, datagrams, done, dumped, message
from tests.unit.kernel.xfrm.scripted_kernel import scripted

FRAGMENT = 8  # bytes of a key that must not be found together


class Secret:
    """A random key of so many bytes, kept as no object that holds it."""

    def __init__(self, size: int = 36) -> None:
        self._masked = [byte ^ 0x5A for byte in os.urandom(size)]

    def key(self) -> bytearray:
        """The key, for whoever wipes it."""
        return bytearray(byte ^ 0x5A for byte in self._masked)

    def fragments(self) -> Iterator[bytes]:
        key = bytes(self.key())
        yield from (key[at : at + FRAGMENT] for at in range(0, len(key) - FRAGMENT + 1, 4))


def objects() -> Iterator[object]:
    """Every object that the collector knows, and all that those refer to."""
    seen = set()
    todo = gc.get_objects()
    while todo:
        each = todo.pop()
        if id(each) not in seen and each is not todo and each is not seen:
            seen.add(id(each))
            yield each
            todo.extend(gc.get_referents(each))


def leaks(secret: Secret) -> list[str]:
    """The types of all objects that hold a fragment of the key: as it is, as hex, base64, repr or a number."""
    gc.collect()
    raw = list(secret.fragments())
    texts = [form for part in raw for form in (part.hex(), part.hex().upper(), repr(part)[2:-1], part.hex(":"))]
    texts.append(base64.b64encode(secret.key()).decode()[:24])
    codes = [text.encode() for text in texts]
    numbers = {number for part in raw for number in (*struct.unpack("<Q", part), *struct.unpack(">Q", part))}
    known = {id(each) for each in (*raw, *texts, *codes, *numbers)}
    found = []
    for each in objects():
        if id(each) in known:
            continue
        if isinstance(each, bytes | bytearray | memoryview):
            data = bytes(each)
            held = any(part in data for part in raw) or any(code in data for code in codes)
        elif isinstance(each, str):
            held = any(text in each for text in texts)
        else:
            held = type(each) is int and each in numbers
        if held:
            found.append(type(each).__name__)
    return found


@pytest.fixture
def secret() -> Secret:
    return Secret()


def keyed(secret: Secret, number: int = 1) -> bytearray:
    """A dumped SA with that key. What it was made of is wiped, and the datagram is for the caller to wipe."""
    key = secret.key()
    try:
        return dumped(config(number, key=key))
    finally:
        key[:] = bytes(len(key))


def test_the_scan_finds_what_it_looks_for(secret: Secret) -> None:
    assert leaks(secret) == []
    number = struct.unpack_from("=Q", secret.key(), 4)
    kept = [bytes(keyed(secret)), {"a": secret.key().hex()}, ValueError(f"bad key {bytes(secret.key())!r}"), number]
    assert sorted(leaks(secret)) == ["bytes", "int", "str", "str"]
    kept.clear()
    del number
    assert leaks(secret) == []


def test_decoding_in_place(secret: Secret) -> None:
    buffer = keyed(secret, 1) + keyed(secret, 2)
    sas = decode_sas(buffer)
    buffer[:] = bytes(len(buffer))
    assert [sa.key_bits for sa in sas] == [288, 288]
    assert leaks(secret) == []


def test_separate_algorithms(secret: Secret) -> None:
    key = secret.key()
    asked = SAConfig(
        src="192.0.2.1", dst="192.0.2.2", spi=5, crypt=Crypt("cbc(aes)", key), auth=Auth("hmac(sha256)", key)
    )
    body = encode.sa(asked)
    encode.add(body, Attr.ALG_AUTH, struct.pack("=64sI", b"hmac(sha256)", len(key) * 8) + key)
    buffer = message(Msg.NEWSA, body)
    (sa,) = decode_sas(buffer)
    for each in (key, body, buffer):
        each[:] = bytes(len(each))
    assert (sa.key_bits, sa.auth_key_bits) == (288, 288)
    assert leaks(secret) == []


def test_corrupt_messages_and_their_tracebacks(secret: Secret) -> None:
    kept: list[BaseException] = []
    for at in range(16, len(keyed(secret)), 2):
        buffer = keyed(secret)
        buffer[at : at + 2] = b"\xff\xff"
        try:
            decode_sas(buffer)
        except DecodeError as error:
            kept.append(error)
        buffer[:] = bytes(len(buffer))
    assert len(kept) > 20
    texts = ["".join(traceback.format_exception(error)) for error in kept]
    assert leaks(secret) == [], texts


def test_a_dump_over_a_socket(secret: Secret, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def body() -> None:
        dump = datagrams([*(keyed(secret, number) for number in range(1, 200)), done()])
        again = [keyed(secret, 7), ack()]
        corrupt = keyed(secret, 8)
        corrupt[16 + 212] = 7
        cut = keyed(secret, 9)
        cut += bytes(1 << 17)
        last = [keyed(secret, 10) + done()]
        async with scripted(dump, again, [corrupt], [cut], [done()], last, buffer_size=1 << 16) as (xfrm, _):
            sas = await xfrm.sas()
            assert len(sas) == 199
            assert (await xfrm.get_sa("10.0.0.7", 1)).key_bits == 288
            with pytest.raises(DecodeError) as caught:
                await xfrm.sas()
            assert await xfrm.sas() == []  # the first try was cut off
            assert len(await xfrm.sas()) == 1
            assert leaks(secret) == [], caught

    asyncio.run(body())
    assert leaks(secret) == [], caplog.text


def test_requests_that_are_taken_and_refused(secret: Secret, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def body() -> None:
        async with scripted([ack()], [ack(17, "exists")], [ack()]) as (xfrm, _):
            key = secret.key()
            asked = SAConfig(src="192.0.2.1", dst="192.0.2.2", spi=5, aead=Aead("rfc4106(gcm(aes))", key))
            await xfrm.add_sa(asked)
            with pytest.raises(KernelError) as caught:
                await xfrm.add_sa(asked)
            await xfrm.update_sa(asked)
            assert str(list(key[:4])) not in repr(asked)
            key[:] = bytes(len(key))
            assert leaks(secret) == [], (caught, asked)

    asyncio.run(body())
    assert leaks(secret) == [], caplog.text


def test_a_request_is_zeroed_once_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Kept(session._Request):
        def encode(self) -> None:
            super().encode()
            made.append((self.data, self.body, bytes(self.data)))

    monkeypatch.setattr(session, "_Request", Kept)

    async def body() -> None:
        async with scripted([ack()], [ack(17)]) as (xfrm, _):
            await xfrm.add_sa(config())
            with pytest.raises(KernelError):
                await xfrm.add_sa(config())

    asyncio.run(body())
    assert len(made) == 2
    for data, encoded, before in made:
        assert b"\xa1" * 20 in before
        assert not any(data)
        assert not any(encoded)


def test_a_configuration_does_not_show_its_keys() -> None:
    shown = SAConfig(
        src="192.0.2.1",
        dst="192.0.2.2",
        spi=5,
        aead=Aead("a", b"KEYKEYKEY"),
        crypt=Crypt("c", b"KEYKEYKEY"),
        auth=Auth("h", b"KEYKEYKEY"),
    )
    assert "KEY" not in f"{shown!r} {shown}"
    assert str(shown) == "SA spi 0x00000005 dst 192.0.2.2"


def test_notifications(secret: Secret) -> None:
    async def body() -> None:
        ours, theirs = socketpair(AF_UNIX, SOCK_DGRAM)
        ours_as_netlink = BoundAnywhere(ours)
        good, bad = keyed(secret, 1), keyed(secret, 2)
        bad[16 + 212] = 7
        for each in (bad, good):
            theirs.send(each)
            each[:] = bytes(len(each))
        async with Monitor(XfrmSession(use_socket=ours_as_netlink), 1) as monitor:
            event = await anext(monitor)
            resync = await anext(monitor)
            assert leaks(secret) == [], (event, resync)
        theirs.close()
        ours.close()

    asyncio.run(body())


class BoundAnywhere:
    """A Unix socket that takes a netlink address to bind to."""

    def __init__(self, sock) -> None:
        self._sock = sock

    def __getattr__(self, name: str):
        return getattr(self._sock, name)

    def bind(self, address: object) -> None:
        assert address == (0, 1)
