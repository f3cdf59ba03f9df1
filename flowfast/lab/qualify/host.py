"""Outside the guest: boots it for the cases, again where one killed the kernel, and makes cells of what it says."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

from flowfast.lab.machine import GuestError, Machine
from flowfast.lab.qualify.kinds import KINDS
from flowfast.lab.topology import Family
from flowfast.model.bulk import Case, Cell, Side, Stage, Verdict
from flowfast.qualified import case_json, case_of

MODELS = {
    "veth": "virtio-net-pci",
    "virtio_net": "virtio-net-pci",
    "vmxnet3": "vmxnet3",
    "e1000e": "e1000e",
    "igb": "igb",
}
"""Driver -> QEMU's model of its NIC. veth needs none."""
STAGES = tuple(Stage)
"""With everything off, too: what is lost there is not lost by a stage."""
TOPOLOGIES = ("policy", "interface", "cross-netns")
TIMEOUT = 3000.0


def matrix(
    drivers: Iterable[str],
    *,
    topologies: Iterable[str] = TOPOLOGIES,
    stages: Iterable[Stage] = STAGES,
    outers: Iterable[Family] = (4,),
    shields: Collection[bool] = (False, True),
) -> list[Case]:
    """Every case of these; unfinished checksums arrive on veth alone, the shield is for a LAN before esp_offload."""
    plain = [
        Case(driver, finished, topology, outer, side, stage, esp_offload)
        for esp_offload, driver, topology, outer, side, stage in product(
            (False, True), drivers, topologies, outers, Side, stages
        )
        for finished in ((True, False) if driver == "veth" else (True,))
    ]
    shielded = [
        replace(case, shield=True)
        for case in plain
        if case.esp_offload and case.side is Side.LAN and case.stage is not Stage.OFF
    ]
    return [case for case in (*plain, *shielded) if case.shield in shields]


@dataclass(slots=True)
class _Heard:
    """What a guest has said so far."""

    rest: bytes = b""
    case: Case | None = None
    kind: str | None = None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    merged: float | None = None
    cells: list[Cell] = field(default_factory=list)
    impossible: set[Case] = field(default_factory=set)

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Takes output of the scenario, and passes its events on."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                event = json.loads(line)
                self._take(event)
                yield event

    def _take(self, event: dict[str, Any]) -> None:
        if "case" in event:
            self.case, self.kind, self.verdicts, self.merged = case_of(event["case"]), None, {}, None
        elif "verdict" in event:
            kind, self.kind = event["kind"], None
            self.verdicts[kind] = Verdict(event["verdict"])
        elif "merged" in event:
            self.merged = event["merged"]
        elif "kind" in event:
            self.kind = event["kind"]
        elif "done" in event:
            self.end()
        elif "impossible" in event:
            self.impossible.add(case_of(event["impossible"]))

    def end(self, how: Verdict | None = None) -> None:
        """The case is over; `how` says what became of the kind that was under way."""
        if self.case is None:
            return
        if how is not None and self.kind is not None:
            self.verdicts[self.kind] = how
        verdicts = {kind.name: self.verdicts.get(kind.name, Verdict.UNKNOWN) for kind in KINDS}
        date = datetime.now(UTC).date().isoformat()
        self.cells.append(Cell(self.case, date, verdicts, self.merged))
        self.case, self.kind = None, None


def qualify(
    image: str,
    driver: str,
    cases: Sequence[Case],
    *,
    told: Callable[[Cell], None],
    say: Callable[[str], None],
) -> None:
    """Runs the cases of one driver in guests of `image`; every cell is told as soon as it is known.

    A guest that panics is booted again for what is left; the kind under way has its verdict, those behind it in its
    case stay unknown. What cannot be tried (the shield on a driver without XDP) has no cell. Raises
    GuestError where a guest dies before any case has begun.
    """
    left = list(cases)
    while left:
        heard = _Heard()
        known = 0

        def take(data: bytes, heard: _Heard = heard) -> None:
            nonlocal known
            for event in heard.feed(data):
                if "verdict" in event and event["verdict"] != "whole":
                    say(f"{heard.case}: {event['kind']}: {json.dumps(event)}")
                if "impossible" in event:
                    say(f"{case_of(event['impossible'])}: cannot be tried: {event['why']}")
            for cell in heard.cells[known:]:
                told(cell)
            known = len(heard.cells)

        machine = Machine(image=image, nics=3, nic_model=MODELS[driver], timeout=TIMEOUT, progress=say)
        argv = ["python3", "-m", "flowfast.lab.qualify.scenario", json.dumps([case_json(each) for each in left])]
        died: GuestError | None = None
        try:
            ran = machine.run(argv, stdout=take)
            if ran.exit_code != 0:
                say(ran.stderr.decode(errors="replace")[-2000:])
        except GuestError as error:
            died = error
            say(str(error))
            heard.end(Verdict.PANIC if "panic" in str(error) else Verdict.LOST)
            take(b"")
        tried = {cell.case for cell in heard.cells} | heard.impossible
        if not tried:
            if died is not None:
                raise died
            return
        left = [case for case in left if case not in tried]
