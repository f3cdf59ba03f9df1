"""Desired: what the planner decided, with the reasons; and Step, one change towards it."""

from dataclasses import dataclass, field

from flowfast.model.nftables import Ruleset
from flowfast.model.reason import Reason
from flowfast.model.transaction import Command
from flowfast.model.tunnel import TunnelPath


@dataclass(frozen=True, slots=True)
class Desired:
    """The ruleset that is wanted, the path of every tunnel, and every decision that said no."""

    ruleset: Ruleset = field(default_factory=Ruleset)
    paths: tuple[TunnelPath, ...] = ()
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One change: a sentence for the operator, and the commands that do it. `flushes` takes flows off the flowtable."""

    what: str
    commands: tuple[Command, ...]
    flushes: bool = False
