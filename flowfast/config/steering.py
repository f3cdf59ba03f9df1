"""The section `steering`: an SA for each CPU, a CPU for each SA."""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from flowfast.config.problem import faulty, quoted
from flowfast.config.section import Section
from flowfast.config.values import choice, words
from flowfast.model.cpu import cpu_list, cpus_of
from flowfast.model.steering import Backend


class Choice(StrEnum):
    """How packets get to the CPU of their SA."""

    OFF = "off"
    AUTO = "auto"  # the most exact that the device can
    NTUPLE = "ntuple"
    RSS = "rss"
    RPS = "rps"
    XDP = "xdp"

    @property
    def backend(self) -> Backend | None:
        """The backend that it names; None for off and auto."""
        return None if self in (Choice.OFF, Choice.AUTO) else Backend(self.value)


class LanChoice(StrEnum):
    """The same where there are no SPIs to go by."""

    OFF = "off"
    AUTO = "auto"
    RSS = "rss"
    RPS = "rps"
    XDP = "xdp"


def _no_rfs(value: object) -> object:
    if words(value, "a way of steering", loose=True) == "rfs":
        sentence = "rfs moves packets to where a socket reads them, and what a router forwards has no socket"
        raise faulty(sentence, "write rps: for forwarded packets rfs does what it does")
    return value


NO_RFS = BeforeValidator(_no_rfs)
"""Runs before the validators that stand before it in an annotation."""


def _cpus(value: object) -> str:
    text = words(value, "CPUs", loose=True)
    try:
        found = cpus_of(text)
    except ValueError:
        found = frozenset()
    if not found or max(found) > 8191:
        raise faulty(f"{quoted(text)} names no CPUs", 'write a list as the kernel does: "0-3,8"')
    return cpu_list(found)


class Steering(Section):
    """Which CPUs process the packets of which SA (RFC 9611)."""

    wan: Annotated[
        Choice,
        choice(Choice, "a way of steering"),
        NO_RFS,
        Field(
            description="Inbound: what brings an SA's packets to the SA's CPU. auto: the cheapest that does. ntuple: a "
            "rule of the NIC for each SPI. xdp: our XDP program and cpumap. rss: the NIC's hash. rps: the kernel's "
            "hash, each SA on one CPU but not the one of its own."
        ),
    ] = Choice.OFF
    lan: Annotated[
        LanChoice,
        choice(LanChoice, "a way of steering"),
        NO_RFS,
        Field(
            description="Outbound: what keeps a flow on one CPU, whose SA it then takes. auto: rss of a NIC with "
            "a queue for nearly each CPU, else rps. xdp only by choice: rps does as well, and needs no program."
        ),
    ] = LanChoice.OFF
    cpus: Annotated[
        str | None,
        PlainValidator(lambda value: None if value is None else _cpus(value)),
        PlainSerializer(lambda value: value),
        WithJsonSchema({"type": "string", "pattern": "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$"}),
        Field(
            description='CPUs that may carry SAs, as the kernel lists them ("0-3,8"). Left out: all but isolated ones.'
        ),
    ] = None

    @property
    def on(self) -> bool:
        """Whether anything is steered."""
        return self.wan is not Choice.OFF or self.lan is not LanChoice.OFF

    @property
    def chosen(self) -> frozenset[int] | None:
        """The CPUs named; None: none are."""
        return None if self.cpus is None else cpus_of(self.cpus)
