"""AsyncXfrmSocket: SAs and policies of the kernel, to read, to change and to watch. The real `Xfrm` (protocol.py)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flowfast.kernel.xfrm import decode, encode, events, info, uapi
from flowfast.kernel.xfrm.attributes import Shapes
from flowfast.kernel.xfrm.config import SAConfig, policy_text, sa_text
from flowfast.kernel.xfrm.events import AsyncEvent, Migration
from flowfast.kernel.xfrm.info import DefaultPolicy, SadInfo, SpdInfo, Thresholds
from flowfast.kernel.xfrm.monitor import Monitor
from flowfast.kernel.xfrm.protocol import DEFAULT_GROUPS
from flowfast.kernel.xfrm.session import XfrmSession
from flowfast.kernel.xfrm.uapi import AeFlag, Attr, Group, Msg, SpdAttr
from flowfast.model.garbage import collector_paused
from flowfast.model.sa import SA, Counters, Direction, Mark, Mode, Policy, Replay, Selector


def sa_reader() -> Callable[[memoryview], SA]:
    """Reads the SAs of one dump."""
    shapes = Shapes()
    return lambda body: decode.sa_message(body, shapes)


def policy_reader(before: dict[int, Policy] | None = None) -> Callable[[memoryview], Policy]:
    """One that takes policies which are as they were from `before`, by index, and takes all that it meets out of it."""
    shapes, known = Shapes(), {} if before is None else before

    def read(body: memoryview) -> Policy:
        policy = decode.policy_message(body, shapes)
        return was if (was := known.pop(policy.policy_index, policy)) == policy else policy

    return read


class AsyncXfrmSocket(XfrmSession):
    """NETLINK_XFRM of one network namespace. The methods are those of `Xfrm` (protocol.py), and documented there.

    A policy that is as the last dump had it is the same object again: they hardly change, and are held for long.
    """

    def __init__(self, netns: str | None = None, **options: Any) -> None:
        super().__init__(netns, **options)
        self._policies: dict[int, Policy] = {}

    async def sas(self, *, proto: int = 0, src: str | None = None, dst: str | None = None) -> list[SA]:
        body = bytearray()  # no struct xfrm_usersa_id: the kernel would log what it cannot parse
        if proto:
            encode.add(body, Attr.PROTO, bytes([proto]))
        if src is not None or dst is not None:
            encode.add(body, Attr.ADDRESS_FILTER, encode.address_filter(src, dst))
        with collector_paused():
            return await self.dump("dump SAs", Msg.GETSA, bytes(body), Msg.NEWSA, sa_reader)

    async def get_sa(self, dst: str, spi: int, proto: int = 50, *, mark: Mark | None = None) -> SA:
        body = bytearray(encode.sa_id(dst, spi, proto))
        encode.add_mark(body, mark)
        what = f"get {sa_text(dst, spi, proto)}"
        (found,) = await self.ask(what, Msg.GETSA, body, kind=Msg.NEWSA, read=sa_reader(), repeat=True)
        return found

    async def add_sa(self, config: SAConfig) -> None:
        await self.ask(f"add {config}", Msg.NEWSA, encode.sa(config), flags=uapi.NLM_F_CREATE | uapi.NLM_F_EXCL)

    async def update_sa(self, config: SAConfig) -> None:
        await self.ask(f"update {config}", Msg.UPDSA, encode.sa(config), flags=uapi.NLM_F_REPLACE)

    async def delete_sa(self, dst: str, spi: int, proto: int = 50, *, mark: Mark | None = None) -> None:
        body = bytearray(encode.sa_id(dst, spi, proto))
        encode.add_mark(body, mark)
        await self.ask(f"delete {sa_text(dst, spi, proto)}", Msg.DELSA, body)

    async def flush_sas(self, proto: int = 0) -> None:
        await self.ask("flush SAs", Msg.FLUSHSA, encode.pack(uapi.USERSA_FLUSH, proto))

    async def policies(self) -> list[Policy]:
        with collector_paused():
            before, self._policies = self._policies, {}
            found = await self.dump("dump policies", Msg.GETPOLICY, b"", Msg.NEWPOLICY, lambda: policy_reader(before))
            self._policies = {policy.policy_index: policy for policy in found}
            return found

    async def get_policy(
        self,
        selector: Selector,
        direction: Direction,
        *,
        policy_index: int = 0,
        mark: Mark | None = None,
        if_id: int = 0,
        type: int = 0,  # noqa: A002  the kernel's word
    ) -> Policy:
        body = encode.policy_id(selector, direction, policy_index)
        encode.add_key(body, mark, if_id, type)
        what = f"get {policy_text(selector, direction)}"
        read = policy_reader()
        (found,) = await self.ask(what, Msg.GETPOLICY, body, kind=Msg.NEWPOLICY, read=read, repeat=True)
        return found

    async def add_policy(self, policy: Policy) -> None:
        what = f"add {policy_text(policy.selector, policy.direction)}"
        await self.ask(what, Msg.NEWPOLICY, encode.policy(policy), flags=uapi.NLM_F_CREATE | uapi.NLM_F_EXCL)

    async def update_policy(self, policy: Policy) -> None:
        what = f"update {policy_text(policy.selector, policy.direction)}"
        await self.ask(what, Msg.UPDPOLICY, encode.policy(policy), flags=uapi.NLM_F_REPLACE)

    async def delete_policy(
        self,
        selector: Selector,
        direction: Direction,
        *,
        policy_index: int = 0,
        mark: Mark | None = None,
        if_id: int = 0,
        type: int = 0,  # noqa: A002
    ) -> None:
        body = encode.policy_id(selector, direction, policy_index)
        encode.add_key(body, mark, if_id, type)
        await self.ask(f"delete {policy_text(selector, direction)}", Msg.DELPOLICY, body)

    async def flush_policies(self, type: int = 0) -> None:  # noqa: A002
        body = bytearray()
        encode.add_policy_type(body, type)
        await self.ask("flush policies", Msg.FLUSHPOLICY, body)

    async def alloc_spi(
        self,
        src: str,
        dst: str,
        *,
        proto: int = 50,
        mode: int = Mode.TUNNEL,
        reqid: int = 0,
        low: int = 0x100,
        high: int = 0xFFFFFFFF,
        sequence: int = 0,
        mark: Mark | None = None,
        if_id: int = 0,
        direction: Direction | None = None,
        pcpu: int | None = None,
    ) -> SA:
        config = SAConfig(src=src, dst=dst, spi=0, proto=proto, mode=mode, reqid=reqid, acquire_sequence=sequence)
        body = bytearray(encode.pack(uapi.USERSPI_INFO, encode.usersa_info(config, 0), low, high))
        encode.add_key(body, mark, if_id)
        encode.add_direction(body, direction)
        encode.add_u32(body, Attr.SA_PCPU, pcpu)
        what = f"allocate an SPI from {low:#x} to {high:#x} dst {dst}"
        (found,) = await self.ask(what, Msg.ALLOCSPI, body, kind=Msg.NEWSA, read=sa_reader())
        return found

    async def expire(
        self, dst: str, spi: int, proto: int = 50, *, hard: bool = False, mark: Mark | None = None
    ) -> None:
        config = SAConfig(src="::" if ":" in dst else "0.0.0.0", dst=dst, spi=spi, proto=proto)  # noqa: S104
        body = bytearray(encode.pack(uapi.USER_EXPIRE, encode.usersa_info(config, 0), int(hard)))
        encode.add_mark(body, mark)
        await self.ask(f"expire {sa_text(dst, spi, proto)}", Msg.EXPIRE, body)

    async def sad_info(self) -> SadInfo:
        read = info.sad_info
        body = bytes(4)
        (found,) = await self.ask("get SADINFO", Msg.GETSADINFO, body, kind=Msg.NEWSADINFO, read=read, repeat=True)
        return found

    async def spd_info(self) -> SpdInfo:
        read = info.spd_info
        body = bytes(4)
        (found,) = await self.ask("get SPDINFO", Msg.GETSPDINFO, body, kind=Msg.NEWSPDINFO, read=read, repeat=True)
        return found

    async def set_spd_thresholds(self, *, ipv4: Thresholds | None = None, ipv6: Thresholds | None = None) -> None:
        body = encode.thresholds(((SpdAttr.IPV4_HTHRESH, ipv4), (SpdAttr.IPV6_HTHRESH, ipv6)))
        await self.ask("set the policy hash thresholds", Msg.NEWSPDINFO, body)

    async def get_default(self) -> DefaultPolicy:
        read = info.default_policy
        body = bytes(uapi.USERPOLICY_DEFAULT.size)
        what = "get the default policy"
        (found,) = await self.ask(what, Msg.GETDEFAULT, body, kind=Msg.GETDEFAULT, read=read, repeat=True)
        return found

    async def set_default(self, default: DefaultPolicy) -> None:
        await self.ask("set the default policy", Msg.SETDEFAULT, encode.pack(uapi.USERPOLICY_DEFAULT, *default))

    async def get_ae(self, dst: str, spi: int, proto: int = 50, *, mark: Mark | None = None) -> AsyncEvent:
        wanted = AeFlag.RTHR | AeFlag.RVAL | AeFlag.LVAL | AeFlag.ETHR
        body = encode.aevent(dst, spi, proto, wanted)
        encode.add_mark(body, mark)
        what = f"get the state of {sa_text(dst, spi, proto)}"
        (found,) = await self.ask(what, Msg.GETAE, body, kind=Msg.NEWAE, read=events.async_event, repeat=True)
        return found

    async def new_ae(
        self,
        dst: str,
        spi: int,
        proto: int = 50,
        *,
        mark: Mark | None = None,
        replay: Replay | None = None,
        counters: Counters | None = None,
        replay_threshold: int | None = None,
        timer_jiffies: int | None = None,
    ) -> None:
        body = encode.aevent(dst, spi, proto, 0)
        encode.add_mark(body, mark)
        encode.add_state(body, replay, counters)
        encode.add_u32(body, Attr.REPLAY_THRESH, replay_threshold)
        encode.add_u32(body, Attr.ETIMER_THRESH, timer_jiffies)
        await self.ask(f"set the state of {sa_text(dst, spi, proto)}", Msg.NEWAE, body, flags=uapi.NLM_F_REPLACE)

    async def migrate(
        self, selector: Selector, direction: Direction, migrations: Sequence[Migration], *, if_id: int = 0
    ) -> None:
        body = encode.migrate(selector, direction, migrations)
        encode.add_u32(body, Attr.IF_ID, if_id or None)
        await self.ask(f"migrate {policy_text(selector, direction)}", Msg.MIGRATE, body)

    def events(self, groups: Iterable[Group] = DEFAULT_GROUPS, *, rcvbuf: int = 8 << 20, **options: Any) -> Monitor:
        mask = sum({1 << (group - 1) for group in groups})
        return Monitor(XfrmSession(self.netns, rcvbuf=rcvbuf), mask, **options)
