"""`Xfrm`: what flowfast asks of the kernel's IPsec databases, whether the real one answers or a fake."""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self

from flowfast.kernel.xfrm.config import SAConfig
from flowfast.kernel.xfrm.events import AsyncEvent, Event, Migration
from flowfast.kernel.xfrm.info import DefaultPolicy, SadInfo, SpdInfo, Thresholds
from flowfast.kernel.xfrm.uapi import Group
from flowfast.model.sa import SA, Counters, Direction, Mark, Mode, Policy, Replay, Selector

DEFAULT_GROUPS = (Group.SA, Group.EXPIRE, Group.POLICY, Group.MIGRATE, Group.MAPPING)
"""What tells of changes. Not ACQUIRE: a listener there makes the kernel hold packets back for an IKE daemon."""


class Events(Protocol):
    """An async iterator over events, and an async context manager that ends it."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Event: ...

    def close(self) -> None:
        """Ends the iteration, also of a task that waits in it."""


class Xfrm(Protocol):
    """SAs and policies of one network namespace. Protocols are IP protocol numbers, ESP (50) unless said otherwise.

    Every method raises KernelError (its text carries the kernel's extended ack) and DecodeError; those that take
    addresses or numbers raise UsageError for what cannot be written. Privileged: CAP_NET_ADMIN, reading too.
    """

    async def sas(self, *, proto: int = 0, src: str | None = None, dst: str | None = None) -> list[SA]:
        """All SAs, larval ones included; or those of a protocol, or with their ends in prefixes of one family."""

    async def get_sa(self, dst: str, spi: int, proto: int = 50, *, mark: Mark | None = None) -> SA:
        """One SA. ESRCH where there is none."""

    async def add_sa(self, config: SAConfig) -> None:
        """Adds an SA. EEXIST where one has its destination, SPI, protocol and mark already."""

    async def update_sa(self, config: SAConfig) -> None:
        """Fills in a larval SA, or changes lifetimes and encapsulation of another. ESRCH where there is none."""

    async def delete_sa(self, dst: str, spi: int, proto: int = 50, *, mark: Mark | None = None) -> None:
        """Deletes one SA. ESRCH where there is none."""

    async def flush_sas(self, proto: int = 0) -> None:
        """Deletes all SAs, or all of a protocol. Their last counters are not announced."""

    async def policies(self) -> list[Policy]:
        """All policies, those that programs set on their sockets included (`Policy.socket`)."""

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
        """One policy, by its selector, or by `policy_index` where that is not 0. ENOENT where there is none."""

    async def add_policy(self, policy: Policy) -> None:
        """Adds a policy; counters are ignored, a `policy_index` of 0 lets the kernel choose. EEXIST."""

    async def update_policy(self, policy: Policy) -> None:
        """Replaces the policy with the same selector, direction, mark and if_id, or adds it."""

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
        """Deletes one policy. ENOENT where there is none."""

    async def flush_policies(self, type: int = 0) -> None:  # noqa: A002
        """Deletes all policies of a type (0 is the main one), except those of sockets."""

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
        """Reserves an SPI between `low` and `high` by a larval SA, which lives for xfrm_acq_expires seconds."""

    async def expire(
        self, dst: str, spi: int, proto: int = 50, *, hard: bool = False, mark: Mark | None = None
    ) -> None:
        """Announces that an SA expired, and deletes it with `hard`. ENOENT where there is none."""

    async def sad_info(self) -> SadInfo:
        """How many SAs there are, and buckets to hash them."""

    async def spd_info(self) -> SpdInfo:
        """How many policies there are by direction, and how they are hashed."""

    async def set_spd_thresholds(self, *, ipv4: Thresholds | None = None, ipv6: Thresholds | None = None) -> None:
        """Sets from which prefix lengths on policies are hashed; None leaves a family as it is."""

    async def get_default(self) -> DefaultPolicy:
        """What becomes of packets that match no policy (kernel 5.15)."""

    async def set_default(self, default: DefaultPolicy) -> None:
        """Sets it, by direction; UNSPEC leaves a direction as it is."""

    async def get_ae(self, dst: str, spi: int, proto: int = 50, *, mark: Mark | None = None) -> AsyncEvent:
        """Replay state, counters and event thresholds of an SA. ESRCH where there is none."""

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
        """Sets them; None leaves one as it is. The window and ESN of `replay` must be those of the SA.

        The kernel takes the time between events in its own ticks, and reports it in tenths of a second.
        """

    async def migrate(
        self, selector: Selector, direction: Direction, migrations: Sequence[Migration], *, if_id: int = 0
    ) -> None:
        """Moves a policy's templates and their SAs to other addresses (RFC 4555)."""

    def events(self, groups: Iterable[Group] = DEFAULT_GROUPS) -> Events:
        """Notifications from this call on, until it is closed."""

    def close(self) -> None:
        """Gives the socket back."""
