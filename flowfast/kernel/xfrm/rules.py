"""What the kernel refuses in an SA: those of its rules that matter to a caller, for the fake.

From net/xfrm/xfrm_user.c, verify_newsa_info() and verify_sa_dir(), and xfrm_state.c, kernel 7.3, with its own words.
tests/guest/test_xfrm.py asks the real kernel the same and compares.
"""

import errno
from collections.abc import Iterator
from typing import NamedTuple

from flowfast.kernel.xfrm.config import SAConfig
from flowfast.kernel.xfrm.uapi import IPPROTO_AH, IPPROTO_COMP, IPPROTO_ESP, ExtraFlag, StateFlag
from flowfast.model.sa import Direction, Mode, Replay


class Refusal(NamedTuple):
    """An errno, and the text of the extended ack ("" where the kernel gives none)."""

    code: int
    text: str = ""


def refusal(config: SAConfig, cpus: int) -> Refusal | None:
    """Why the kernel would not take this SA on a machine with so many CPUs; None where it would."""
    return next(_refusals(config, cpus), None)


def _refusals(config: SAConfig, cpus: int) -> Iterator[Refusal]:
    yield from _algorithms(config)
    yield from _directions(config)
    if config.pcpu is not None and config.direction is None:
        yield Refusal(errno.EINVAL, "SA_PCPU only supported with SA_DIR")
    if config.pcpu is not None and config.pcpu >= cpus:
        yield Refusal(errno.ERANGE, "pCPU number too big")


def _algorithms(config: SAConfig) -> Iterator[Refusal]:
    separate = config.auth is not None or config.crypt is not None
    if config.proto == IPPROTO_ESP:
        if not separate and config.aead is None:
            text = "Missing required attribute for ESP: at least one of AUTH, AUTH_TRUNC, CRYPT, AEAD"
            yield Refusal(errno.EINVAL, text)
        if separate and config.aead is not None:
            text = "Invalid attribute combination for ESP: AEAD can't be used with AUTH, AUTH_TRUNC, CRYPT"
            yield Refusal(errno.EINVAL, text)
        if config.tfc_pad is not None and config.mode != Mode.TUNNEL:
            yield Refusal(errno.EINVAL, "TFC padding can only be used in tunnel mode")
    elif config.proto == IPPROTO_AH and config.auth is None:
        yield Refusal(errno.EINVAL, "Missing required attribute for AH: AUTH_TRUNC or AUTH")
    elif config.proto == IPPROTO_COMP and config.compression is None:
        yield Refusal(errno.EINVAL, "Missing required attribute for COMP: COMP")
    elif config.proto not in (IPPROTO_ESP, IPPROTO_AH, IPPROTO_COMP):
        yield Refusal(errno.EINVAL, "Unsupported protocol")


_OUT_NEVER = (StateFlag.DECAP_DSCP, StateFlag.ICMP, StateFlag.WILDRECV)
_IN_NEVER = (ExtraFlag.DONT_ENCAP_DSCP, ExtraFlag.OSEQ_MAY_WRAP)


def _directions(config: SAConfig) -> Iterator[Refusal]:
    state = config.replay or Replay(0, 0, config.replay_window, config.esn)
    if config.mode == Mode.IPTFS and config.direction is None:
        yield Refusal(errno.EINVAL, "IP-TFS mode requires in or out direction attribute")
    if config.esn and state.window == 0 and config.direction != Direction.OUT:
        yield Refusal(errno.EINVAL, "ESN replay window must be > 0")
    if config.direction == Direction.OUT:
        yield from (_flag(flag.name, "output") for flag in _OUT_NEVER if config.flags & flag)
        if state.window:
            yield Refusal(errno.EINVAL, "Replay window should be 0 for output SA")
    if config.direction == Direction.IN:
        if config.flags & StateFlag.NOPMTUDISC:
            yield _flag("NOPMTUDISC", "input")
        yield from (_flag(flag.name, "input") for flag in _IN_NEVER if config.extra_flags & flag)


def _flag(name: str | None, way: str) -> Refusal:
    return Refusal(errno.EINVAL, f"Flag {name} should not be set for {way} SA")
