"""The section `tunnels`: names for tunnels, how each is known, and that no two of them claim the same packets."""

from collections.abc import Hashable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic import model_validator as validator
from pydantic.config import JsonDict

from flowfast.config.claims import MAX_PAIRS, Clash, clashes, count_pairs
from flowfast.config.problem import Fault, Faulty, faulty
from flowfast.config.scalar import found
from flowfast.config.section import SOME, Section
from flowfast.config.values import DISTINCT, U32, Address, DeviceName, Prefix, Truth, TunnelName, listed, whole

MAX_PREFIXES = 256  # of one side of one tunnel; IKEv2 itself allows 255 selectors a side (RFC 7296 section 3.13)
SOME_PREFIXES: JsonDict = {**SOME, "maxItems": MAX_PREFIXES}


class Tunnel(Section):
    """A tunnel by name: how to know it (everything given must match), and what to do with it."""

    local: Annotated[
        tuple[Prefix, ...],
        Field(description="Traffic selectors on our side.", json_schema_extra=SOME_PREFIXES),
        listed("prefixes", MAX_PREFIXES, hint="use shorter prefixes"),
        DISTINCT,
    ] = ()
    remote: Annotated[
        tuple[Prefix, ...],
        Field(description="Traffic selectors on the other side.", json_schema_extra=SOME_PREFIXES),
        listed("prefixes", MAX_PREFIXES, hint="use shorter prefixes"),
        DISTINCT,
    ] = ()
    peer: Annotated[Address | None, Field(description="Outer address of the other gateway.")] = None
    reqid: Annotated[
        int | None,
        PlainValidator(lambda value: whole(value, "a reqid", 1, U32)),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": U32}),
        Field(description="reqid of the tunnel's SAs, where the IKE daemon is told to use a fixed one."),
    ] = None
    if_id: Annotated[
        int | None,
        PlainValidator(lambda value: whole(value, "an if_id", 0, U32)),
        WithJsonSchema({"type": "integer", "minimum": 0, "maximum": U32}),
        Field(description="XFRM interface ID of the tunnel's SAs and policies; 0: policy-based, no xfrm interface."),
    ] = None
    interface: Annotated[DeviceName | None, Field(description="Name of the tunnel's xfrm interface.")] = None
    offload: Annotated[
        Truth | None, Field(description="Whether its flows go on the flowtable; without it, defaults.offload says.")
    ] = None

    @property
    def pairs(self) -> tuple[tuple[IPv4Network | IPv6Network, IPv4Network | IPv6Network], ...]:
        """Every local prefix with every remote prefix of its family: (local, remote)."""
        return tuple((ours, theirs) for ours in self.local for theirs in self.remote if ours.version == theirs.version)

    @property
    def own(self) -> Hashable | None:
        """What tells its packets apart from those of a tunnel with the same selectors, None: nothing does."""
        return self.interface if self.if_id is None else self.if_id

    @property
    def marks(self) -> tuple[Hashable, ...]:
        """Everything but selectors by which it is known."""
        return (self.peer, self.reqid, self.if_id, self.interface)

    @validator(mode="after")
    def _matchable(self) -> "Tunnel":
        if not self.local and not self.remote and self.marks == (None,) * 4:
            raise faulty(
                "nothing says which tunnel this is", "give local and remote, or one of peer, reqid, if_id, interface"
            )
        for given, missing in (("local", "remote"), ("remote", "local")):
            if getattr(self, given) and not getattr(self, missing):
                raise Faulty(Fault(f"missing, while {given} is given", "a selector has two sides", (missing,)))
        faults = [*_lonely("local", self.local, self.remote), *_lonely("remote", self.remote, self.local)]
        if faults:
            raise Faulty(*faults)
        return self


def _lonely(side: str, ours: Iterable[Prefix], theirs: Iterable[Prefix]) -> list[Fault]:
    families = {prefix.version for prefix in theirs}
    other = "remote" if side == "local" else "local"
    return [
        Fault(
            f"{prefix} has no {other} prefix of its family", f"add an IPv{prefix.version} prefix to {other}", (side, at)
        )
        for at, prefix in enumerate(ours)
        if prefix.version not in families
    ]


def _sentence(clash: Clash) -> Fault:
    if clash.later_pair is None or clash.earlier_pair is None:
        return Fault(
            f'is known by the same values as tunnel "{clash.earlier}"',
            "add what tells them apart, or make one of the two",
            (clash.later,),
        )
    ours, theirs = clash.later_pair, clash.earlier_pair
    same = (ours.local, ours.remote) == (theirs.local, theirs.remote)
    more = "" if same else f" within {theirs.local} to {theirs.remote}"
    return Fault(
        f'claims {ours.local} to {ours.remote}, which tunnel "{clash.earlier}" claims too{more}',
        "make one of them narrower, or give each its own if_id",
        (clash.later,),
    )


def _one_claim_each(tunnels: Mapping[str, Tunnel]) -> Mapping[str, Tunnel]:
    if (pairs := count_pairs(tunnels)) > MAX_PAIRS:
        raise faulty(
            f"{pairs} pairs of prefixes, at most {MAX_PAIRS} are read", "leave out tunnels that need no setting"
        )
    faults = [_sentence(clash) for clash in clashes(tunnels)]
    if faults:
        raise Faulty(*faults)
    return tunnels


def _named(value: object) -> object:
    if not isinstance(value, Mapping):
        raise faulty(f"expected a mapping of tunnel names to their settings, found {found(value)}")
    return dict(value)


Tunnels = Annotated[dict[TunnelName, Tunnel], BeforeValidator(_named), AfterValidator(_one_claim_each)]
