"""FakeXfrm: the kernel's IPsec databases in memory, for tests and for whoever has no root.

It keeps the rules of the real ones that callers meet (what exists already, what is missing, what does not go
together: rules.py), and sends the same events. It moves no packets: `count()` says what an SA would have counted.
"""

import errno
import time
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network

from flowfast.kernel.xfrm import events as ev
from flowfast.kernel.xfrm.builders import everything, family_of, make_policy, make_sa
from flowfast.kernel.xfrm.config import NO_LIMITS, SAConfig, policy_text, sa_text
from flowfast.kernel.xfrm.fake_events import FakeEvents
from flowfast.kernel.xfrm.info import DefaultAction, DefaultPolicy, SadInfo, SpdInfo, Thresholds
from flowfast.kernel.xfrm.protocol import DEFAULT_GROUPS
from flowfast.kernel.xfrm.rules import refusal
from flowfast.kernel.xfrm.session import kernel_error
from flowfast.kernel.xfrm.uapi import AeFlag, Group, StateFlag
from flowfast.model.sa import SA, Counters, Direction, Lifetime, Mark, Mode, Policy, Replay, Selector

__all__ = ["FakeEvents", "FakeXfrm", "make_policy", "make_sa"]

_INDEX_STEP = 8  # the lower bits of the kernel's policy index are the direction
_INDEX_BITS = {Direction.IN: 0, Direction.OUT: 1, Direction.FORWARD: 2}
_ACQUIRE_SECONDS = 30  # net.core.xfrm_acq_expires


class FakeXfrm:
    """An `Xfrm` (protocol.py) without a kernel, on a machine with `cpus` CPUs.

    Tests put objects into it by `put()`, without a check or an event, move counters by `count()`, and say what else
    the kernel would by `emit()`.
    """

    def __init__(self, sas: Iterable[SA] = (), policies: Iterable[Policy] = (), *, cpus: int = 8) -> None:
        self._sas: list[SA] = []
        self._policies: list[Policy] = []
        self._listeners: list[FakeEvents] = []
        self._default = DefaultPolicy(*[DefaultAction.ACCEPT] * 3)
        self._thresholds = {4: Thresholds(32, 32), 6: Thresholds(128, 128)}
        self._cpus = cpus
        self._indexed = 0
        self.put(*sas, *policies)

    def put(self, *objects: SA | Policy) -> None:
        """Adds SAs and policies as they are; a policy without an index is given one."""
        for each in objects:
            if isinstance(each, SA):
                self._sas.append(each)
            else:
                self._policies.append(self._with_index(each))

    def count(self, dst: str, spi: int, size: int, packets: int, *, proto: int = 50) -> SA:
        """The SA carries so many bytes and packets more, now. Returns it as it is then."""
        at = self._at(dst, spi, proto, None, f"count on {sa_text(dst, spi, proto)}")
        sa, now = self._sas[at], int(time.time())
        used, replay = sa.counters, sa.replay
        counters = Counters(used.bytes + size, used.packets + packets, used.add_time, used.use_time or now)
        if sa.direction == Direction.IN:
            replay = replay._replace(seq=replay.seq + packets)
        else:
            replay = replay._replace(oseq=replay.oseq + packets)
        self._sas[at] = sa._replace(counters=counters, replay=replay, last_used=now)
        return self._sas[at]

    def emit(self, event: ev.Event) -> None:
        """Tells an event to all who listen to its group: an Acquire, a Mapping, a Resync."""
        for listener in self._listeners:
            listener.emit(event)

    def events(self, groups: Iterable[Group] = DEFAULT_GROUPS) -> FakeEvents:
        self._listeners.append(FakeEvents(groups))
        return self._listeners[-1]

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()

    async def sas(self, *, proto: int = 0, src: str | None = None, dst: str | None = None) -> list[SA]:
        return [sa for sa in self._sas if proto in (0, sa.proto) and _inside(sa.src, src) and _inside(sa.dst, dst)]

    async def get_sa(self, dst: str, spi: int, proto: int = 50, *, mark: Mark | None = None) -> SA:
        return self._sas[self._at(dst, spi, proto, mark, f"get {sa_text(dst, spi, proto)}")]

    async def add_sa(self, config: SAConfig) -> None:
        self._check(config, f"add {config}")
        if self._search(config.dst, config.spi, config.proto, config.mark) is not None:
            raise kernel_error(f"add {config}", errno.EEXIST)
        self._sas.append(reported(config))
        self.emit(ev.SaAdded(self._sas[-1]))

    async def update_sa(self, config: SAConfig) -> None:
        self._check(config, f"update {config}")
        at = self._at(config.dst, config.spi, config.proto, config.mark, f"update {config}")
        old, new = self._sas[at], reported(config)
        if not old.larval:  # xfrm_state_update() changes no more than this of an SA that is in use
            new = old._replace(lifetime=new.lifetime, encap=new.encap or old.encap)
        self._sas[at] = new
        self.emit(ev.SaUpdated(new))

    async def delete_sa(self, dst: str, spi: int, proto: int = 50, *, mark: Mark | None = None) -> None:
        gone = self._sas.pop(self._at(dst, spi, proto, mark, f"delete {sa_text(dst, spi, proto)}"))
        self.emit(ev.SaDeleted(gone))

    async def flush_sas(self, proto: int = 0) -> None:
        left = [sa for sa in self._sas if proto not in (0, sa.proto)]
        if len(left) < len(self._sas):
            self._sas = left
            self.emit(ev.SaFlushed(proto))

    async def policies(self) -> list[Policy]:
        return list(self._policies)

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
        for policy in self._policies:
            of = (policy.direction, policy.type, policy.if_id, policy.mark)
            named = policy.policy_index == policy_index if policy_index else policy.selector == selector
            if named and of == (direction, type, if_id, mark) and not policy.socket:
                return policy
        raise kernel_error(f"get {policy_text(selector, direction)}", errno.ENOENT)

    async def add_policy(self, policy: Policy) -> None:
        if self._same(policy) is not None:
            raise kernel_error(f"add {policy_text(policy.selector, policy.direction)}", errno.EEXIST)
        self.put(_stored(policy))
        self.emit(ev.PolicyAdded(self._policies[-1]))

    async def update_policy(self, policy: Policy) -> None:
        old = self._same(policy)
        if old is not None:
            self._policies.remove(old)
            policy = policy._replace(policy_index=old.policy_index)
        self.put(_stored(policy))
        self.emit(ev.PolicyUpdated(self._policies[-1]))

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
        gone = await self.get_policy(selector, direction, policy_index=policy_index, mark=mark, if_id=if_id, type=type)
        self._policies.remove(gone)
        self.emit(ev.PolicyDeleted(gone))

    async def flush_policies(self, type: int = 0) -> None:  # noqa: A002
        left = [policy for policy in self._policies if policy.socket or policy.type != type]
        if len(left) < len(self._policies):
            self._policies = left
            self.emit(ev.PoliciesFlushed(type))

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
        spi = next((n for n in range(low, high + 1) if self._search(dst, n, proto, mark) is None), None)
        if spi is None:
            raise kernel_error(f"allocate an SPI from {low:#x} to {high:#x} dst {dst}", errno.ENOENT)
        larval = make_sa(
            src, dst, spi, proto=proto, mode=mode, reqid=reqid, mark=mark, if_id=if_id, pcpu=pcpu, algorithm=None
        )
        self._sas.append(
            larval._replace(
                direction=direction,
                flags=0,
                replay=Replay(0, 0, 0, False),
                counters=Counters(0, 0, int(time.time()), None),
                lifetime=Lifetime(hard_add_seconds=_ACQUIRE_SECONDS),
                acquire_sequence=sequence,
            )
        )
        return self._sas[-1]

    async def expire(
        self, dst: str, spi: int, proto: int = 50, *, hard: bool = False, mark: Mark | None = None
    ) -> None:
        what = f"expire {sa_text(dst, spi, proto)}"
        at = self._search(dst, spi, proto, mark)
        if at is None:
            raise kernel_error(what, errno.ENOENT)
        if self._sas[at].larval:
            raise kernel_error(what, errno.EINVAL)
        sa = self._sas.pop(at) if hard else self._sas[at]
        self.emit(ev.SaExpired(sa, hard))

    async def sad_info(self) -> SadInfo:
        return SadInfo(len(self._sas), 8, 1 << 20)

    async def spd_info(self) -> SpdInfo:
        counts = [
            sum(policy.direction == direction and policy.socket == socket for policy in self._policies)
            for socket in (False, True)
            for direction in Direction
        ]
        return SpdInfo._make((*counts, 7, 1 << 20, self._thresholds[4], self._thresholds[6]))

    async def set_spd_thresholds(self, *, ipv4: Thresholds | None = None, ipv6: Thresholds | None = None) -> None:
        for version, longest, given in ((4, 32, ipv4), (6, 128, ipv6)):
            if given is not None and max(given) > longest:
                raise kernel_error("set the policy hash thresholds", errno.EINVAL)
            self._thresholds[version] = given or self._thresholds[version]

    async def get_default(self) -> DefaultPolicy:
        return self._default

    async def set_default(self, default: DefaultPolicy) -> None:
        self._default = DefaultPolicy(*(new or old for new, old in zip(default, self._default, strict=True)))
        self.emit(ev.DefaultChanged(self._default))

    async def get_ae(self, dst: str, spi: int, proto: int = 50, *, mark: Mark | None = None) -> ev.AsyncEvent:
        flags = AeFlag.RTHR | AeFlag.RVAL | AeFlag.LVAL | AeFlag.ETHR
        at = self._at(dst, spi, proto, mark, f"get the state of {sa_text(dst, spi, proto)}")
        return _async_event(self._sas[at], flags)

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
        what = f"set the state of {sa_text(dst, spi, proto)}"
        at = self._at(dst, spi, proto, mark, what)
        sa = self._sas[at]
        wide = replay is not None and (replay.esn or replay.window > 32)
        if (replay, counters, replay_threshold, timer_jiffies) == (None,) * 4 or sa.larval:
            raise kernel_error(what, errno.EINVAL)
        if wide and replay is not None and replay.window != sa.replay.window:
            raise kernel_error(what, errno.EINVAL)
        self._sas[at] = sa._replace(replay=replay or sa.replay, counters=counters or sa.counters)
        self.emit(_async_event(self._sas[at], AeFlag.CU))

    async def migrate(
        self, selector: Selector, direction: Direction, migrations: Sequence[ev.Migration], *, if_id: int = 0
    ) -> None:
        policy = await self.get_policy(selector, direction, if_id=if_id)
        moved = {(each.old_src, each.old_dst, each.proto, each.mode): each for each in migrations}
        templates = list(policy.templates)
        for index, template in enumerate(templates):
            if each := moved.get((template.src, template.dst, template.proto, template.mode)):
                templates[index] = template._replace(src=each.new_src, dst=each.new_dst)
        self._policies[self._policies.index(policy)] = policy._replace(templates=tuple(templates))
        for index, sa in enumerate(self._sas):
            if each := moved.get((sa.src, sa.dst, sa.proto, sa.mode)):
                self._sas[index] = sa._replace(src=each.new_src, dst=each.new_dst)
        self.emit(ev.Migrated(selector, direction, tuple(migrations)))

    def _search(self, dst: str, spi: int, proto: int, mark: Mark | None) -> int | None:
        """Where an SA is, by the kernel's comparison: the mark that is looked for, under the SA's own mask."""
        value = 0 if mark is None else mark.value & mark.mask
        for at, sa in enumerate(self._sas):
            marked = sa.mark is None or value & sa.mark.mask == sa.mark.value
            if sa.key == (dst, spi, proto) and marked:
                return at
        return None

    def _at(self, dst: str, spi: int, proto: int, mark: Mark | None, what: str) -> int:
        at = self._search(dst, spi, proto, mark)
        if at is None:
            raise kernel_error(what, errno.ESRCH)
        return at

    def _check(self, config: SAConfig, what: str) -> None:
        refused = refusal(config, self._cpus)
        if refused is not None:
            raise kernel_error(what, refused.code, refused.text)

    def _same(self, policy: Policy) -> Policy | None:
        def key(each: Policy) -> tuple[object, ...]:
            return (each.selector, each.direction, each.type, each.if_id, each.mark, each.socket)

        return next((each for each in self._policies if key(each) == key(policy)), None)

    def _with_index(self, policy: Policy) -> Policy:
        if policy.policy_index:
            return policy
        self._indexed += _INDEX_STEP
        return policy._replace(policy_index=self._indexed | _INDEX_BITS[policy.direction])


def _inside(address: str, prefix: str | None) -> bool:
    return prefix is None or ip_address(address) in ip_network(prefix, strict=False)


def _stored(policy: Policy) -> Policy:
    """A policy as the kernel reports it after it was asked for."""
    unused = Counters(0, 0, int(time.time()), None)
    return policy._replace(counters=unused, lifetime=policy.lifetime or NO_LIMITS)


def reported(config: SAConfig) -> SA:
    """An SA as the kernel reports it after it was asked for: without its keys, and not used yet."""
    cipher = config.aead or config.crypt
    family = family_of(config.dst)
    icv_bits = next((each.icv_bits for each in (config.aead, config.auth) if each is not None), None)
    return SA(
        family=family,
        src=config.src,
        dst=config.dst,
        proto=config.proto,
        spi=config.spi,
        reqid=config.reqid,
        mode=config.mode,
        flags=config.flags | (StateFlag.ESN if config.esn else 0),
        counters=Counters(0, 0, int(time.time()), None),
        lifetime=config.lifetime,
        selector=config.selector or everything(family),
        replay=config.replay or Replay(0, 0, config.replay_window, config.esn),
        replay_window_errors=0,
        replay_errors=0,
        integrity_errors=0,
        algorithm=None if cipher is None else cipher.name,
        auth_algorithm=None if config.auth is None else config.auth.name,
        icv_bits=icv_bits,
        if_id=config.if_id,
        mark=config.mark,
        direction=config.direction,
        pcpu=config.pcpu,
        encap=config.encap,
        offload=config.offload,
        extra_flags=config.extra_flags,
        output_mark=config.output_mark,
        tfc_pad=config.tfc_pad,
        iptfs=config.iptfs,
        key_bits=None if cipher is None else len(cipher.key) * 8,
        auth_key_bits=None if config.auth is None else len(config.auth.key) * 8,
        compression=config.compression,
        acquire_sequence=config.acquire_sequence,
        nat_keepalive_seconds=config.nat_keepalive_seconds,
        mapping_threshold_seconds=config.mapping_threshold_seconds,
        care_of_address=config.care_of_address,
    )


def _async_event(sa: SA, flags: int) -> ev.AsyncEvent:
    return ev.AsyncEvent(
        sa.src,
        sa.dst,
        sa.spi,
        sa.proto,
        sa.reqid,
        flags,
        replay=sa.replay,
        counters=sa.counters,
        mark=sa.mark,
        if_id=sa.if_id,
        pcpu=sa.pcpu,
        direction=sa.direction,
    )
