"""The kernel's IPsec databases over NETLINK_XFRM: read, changed and watched; the real ones and a fake.

`Xfrm` says what there is, `AsyncXfrmSocket` asks the kernel, `FakeXfrm` keeps it in memory and needs no root.
"""

from typing import TYPE_CHECKING

from flowfast.kernel.xfrm.config import Aead, Auth, Crypt, SAConfig
from flowfast.kernel.xfrm.decode import decode_policies, decode_sas
from flowfast.kernel.xfrm.events import (
    Acquire,
    AsyncEvent,
    DefaultChanged,
    Event,
    Mapping,
    Migrated,
    Migration,
    PoliciesFlushed,
    PolicyAdded,
    PolicyDeleted,
    PolicyExpired,
    PolicyUpdated,
    Report,
    Resync,
    SaAdded,
    SaDeleted,
    SaExpired,
    SaFlushed,
    SaUpdated,
    decode_events,
)
from flowfast.kernel.xfrm.fake import FakeEvents, FakeXfrm, make_policy, make_sa
from flowfast.kernel.xfrm.info import DefaultAction, DefaultPolicy, SadInfo, SpdInfo, Thresholds
from flowfast.kernel.xfrm.monitor import Monitor
from flowfast.kernel.xfrm.protocol import DEFAULT_GROUPS, Events, Xfrm
from flowfast.kernel.xfrm.socket import AsyncXfrmSocket
from flowfast.kernel.xfrm.uapi import AeFlag, ExtraFlag, Group, OffloadFlag, PolicyFlag, StateFlag

__all__ = [
    "DEFAULT_GROUPS",
    "Acquire",
    "AeFlag",
    "Aead",
    "AsyncEvent",
    "AsyncXfrmSocket",
    "Auth",
    "Crypt",
    "DefaultAction",
    "DefaultChanged",
    "DefaultPolicy",
    "Event",
    "Events",
    "ExtraFlag",
    "FakeEvents",
    "FakeXfrm",
    "Group",
    "Mapping",
    "Migrated",
    "Migration",
    "Monitor",
    "OffloadFlag",
    "PoliciesFlushed",
    "PolicyAdded",
    "PolicyDeleted",
    "PolicyExpired",
    "PolicyFlag",
    "PolicyUpdated",
    "Report",
    "Resync",
    "SAConfig",
    "SaAdded",
    "SaDeleted",
    "SaExpired",
    "SaFlushed",
    "SaUpdated",
    "SadInfo",
    "SpdInfo",
    "StateFlag",
    "Thresholds",
    "Xfrm",
    "decode_events",
    "decode_policies",
    "decode_sas",
    "make_policy",
    "make_sa",
]

if TYPE_CHECKING:

    def _both(real: AsyncXfrmSocket, fake: FakeXfrm) -> tuple[Xfrm, Xfrm]:
        """mypy compares them with the protocol here."""
        return real, fake
