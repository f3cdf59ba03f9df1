"""Desired: what the planner decided, with the reasons; and Step, one change towards it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowfast.model.bulk import Bulked, Stage
from flowfast.model.knob import Settings
from flowfast.model.nftables import Ruleset
from flowfast.model.reason import Reason
from flowfast.model.steering import Steering
from flowfast.model.transaction import Command
from flowfast.model.tunnel import TunnelPath


@dataclass(frozen=True, slots=True)
class Desired:
    """The ruleset and the knobs that are wanted, the path of every tunnel, and every decision that said no."""

    ruleset: Ruleset = field(default_factory=Ruleset)
    paths: tuple[TunnelPath, ...] = ()
    reasons: tuple[Reason, ...] = ()
    knobs: Settings = field(default_factory=dict)
    steering: Steering | None = None
    stages: Mapping[str, Mapping[Stage, Settings]] = field(default_factory=dict)
    """By device of profile auto: the stages that may be on, the best first and OFF last, with their knobs."""
    bulked: tuple[Bulked, ...] = ()
    """Devices on which bulking matters, and what is wanted of them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change: a sentence for the operator, and the commands that do it. `flushes` takes flows off the flowtable.

    `before`: must hold before any of the steps after it begins to, so that its transaction is one of its own.
    """

    what: str
    commands: tuple[Command, ...]
    flushes: bool = False
    before: bool = False
