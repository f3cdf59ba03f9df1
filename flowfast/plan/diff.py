"""diff(): from the ruleset that the kernel holds to the one that is wanted, as few changes as will do.

A transaction is not one instant. The kernel hooks a flowtable's new devices while it still reads the transaction; then
it switches all rules and plain sets over; what is new in sets of concatenated intervals (pipapo) is found only after
that, and old flowtables are let go of after that, too (nf_tables_newflowtable, nf_tables_commit, nft_set_commit_update;
net/netfilter/nf_tables_api.c, 6.1 to 7.x). With many elements these are milliseconds, and forged packets were seen to
pass. So the steps are up to three transactions, each with nothing that the next one has to cover for:

1. retreat: devices whose guard goes or changes leave the flowtable, and nothing else is touched;
2. guards, and the sets that keep connections off the flowtable;
3. the fast path.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from flowfast.model.desired import Step
from flowfast.model.garbage import collector_paused
from flowfast.model.nftables import Chain, Element, Flowtable, Ruleset, Set, Table, TableState, rule_hash
from flowfast.model.transaction import (
    AddChain,
    AddCounter,
    AddElements,
    AddFlowtable,
    AddRule,
    AddSet,
    AddTable,
    Command,
    DeleteChain,
    DeleteCounter,
    DeleteDevices,
    DeleteElements,
    DeleteFlowtable,
    DeleteSet,
    DeleteTable,
    FlushChain,
)
from flowfast.plan.clamp import CLAMP
from flowfast.plan.filters import EXCLUDED_ADDRESSES
from flowfast.plan.ruleset import INET, NETDEV, PROTECTED

OWN = (INET, NETDEV)
KEEPING_OFF = (PROTECTED, EXCLUDED_ADDRESSES)
"""Sets (by how their names begin) that let fewer flows be fast when they grow."""
LETTING_ON = ("fast", "guarded")
"""Sets that do so when they shrink. Of others neither matters: a guard sees every packet, before the flowtable."""


@collector_paused()
def diff(wanted: Ruleset, actual: Ruleset) -> list[Step]:
    """The steps, in order; none where the kernel holds what is wanted."""
    gone = [table for table in OWN if table in actual.tables and table not in wanted.tables]
    changes = [
        _TableDiff(state, actual.tables.get(table, TableState(table)), table not in actual.tables)
        for table, state in wanted.tables.items()
    ]
    # A flow that is fast already would never see the change: whatever takes something away, or changes a rule,
    # takes all flows off, in the same transaction.
    flush = any(change.restrictive for change in changes) or NETDEV in gone or _newly_kept_off(wanted, actual)
    guards_move = NETDEV in gone or any(change.restrictive for change in changes if change.table == NETDEV)
    dead = {table: [Step(f"remove table {table}", (DeleteTable(table),), flushes=True)] for table in gone}
    guards, fast = dead.get(NETDEV, []), dead.get(INET, [])
    for change in changes:
        if change.table == NETDEV:
            guards += [*change.removals(flush=False), *change.additions(flush=False)]
        else:
            more = list(change.additions(flush=flush))
            early = [step for step in more if _keeps_off(step, change.dead_sets)]
            if early and change.new:
                early.insert(0, more.pop(0))  # the table itself
            guards += early
            fast += [*change.removals(flush=flush), *(step for step in more if not _keeps_off(step, change.dead_sets))]
    return _in_turn(_retreat(actual) if guards_move else [], guards, fast)


def _keeps_off(step: Step, dead_sets: list[str]) -> bool:
    """Whether the step fills sets that keep connections off the flowtable, and can be made before any other."""
    return bool(step.commands) and all(
        (isinstance(command, AddElements) and command.set.startswith(KEEPING_OFF))
        or (
            isinstance(command, AddSet)
            and command.set.name.startswith(KEEPING_OFF)
            and command.set.name not in dead_sets
        )
        for command in step.commands
    )


def _in_turn(*parts: list[Step]) -> list[Step]:
    """One part after the other, each a transaction."""
    filled = [some for part in parts if (some := [step for step in part if step.commands])]
    for part in filled[:-1]:
        part[-1] = replace(part[-1], before=True)
    return [step for part in filled for step in part]


def flush_flows(actual: Ruleset) -> list[Command]:
    """Takes every flow off the flowtable, and leaves the ruleset as it is: one transaction.

    The chains that name the flowtable are emptied and filled again around its removal, from what the kernel's ruleset
    must be (so pass the wanted one, which has the rules' text).
    """
    table = actual.tables.get(INET)
    if table is None or not table.flowtables:
        return []
    users = _users(table)
    commands: list[Command] = [FlushChain(INET, name) for name in users]
    commands += [DeleteFlowtable(INET, name) for name in table.flowtables]
    commands += [AddFlowtable(INET, flowtable) for flowtable in table.flowtables.values()]
    commands += [AddRule(INET, name, rule) for name, chain in users.items() for rule in chain.rules]
    return commands


def remove_all(actual: Ruleset) -> list[Step]:
    """The steps that leave nothing of ours: guarded devices off the flowtable, guards, then the fast path."""
    return diff(Ruleset(), actual)


def _guards(of: Ruleset) -> frozenset[str]:
    """Devices that have a guard."""
    chains = of.tables[NETDEV].chains.values() if NETDEV in of.tables else ()
    hooks = (chain.hook for chain in chains if chain.name.startswith("guard_"))
    return frozenset(hook.device for hook in hooks if hook is not None and hook.device)


def _devices(of: Ruleset) -> frozenset[str]:
    """Devices of the flowtable."""
    flowtables = of.tables[INET].flowtables.values() if INET in of.tables else ()
    return frozenset(device for flowtable in flowtables for device in flowtable.devices)


def _retreat(actual: Ruleset) -> list[Step]:
    """Guarded devices leave the flowtable, before anything else is changed."""
    leaving = _guards(actual) & _devices(actual)
    flowtables = actual.tables[INET].flowtables.values() if leaving else ()
    return [
        Step(
            f"take {', '.join(sorted(leaving))} off the flowtable, before guards change",
            (DeleteDevices(INET, replace(flowtable, devices=flowtable.devices & leaving)),),
            flushes=True,
            before=True,
        )
        for flowtable in flowtables
        if flowtable.devices & leaving
    ]


def _newly_kept_off(wanted: Ruleset, actual: Ruleset) -> bool:
    """True where addresses become protected or excluded that connections may be crossing, fast."""
    if INET not in wanted.tables or INET not in actual.tables:
        return False
    had = actual.tables[INET].sets
    return any(
        _missing(each.elements, had[name].elements)
        for name, each in wanted.tables[INET].sets.items()
        if name.startswith(KEEPING_OFF) and name in had
    )


def _users(state: TableState) -> dict[str, Chain]:
    return {n: chain for n, chain in state.chains.items() if any("flow add @" in rule for rule in chain.rules)}


def _same_rules(wanted: Chain, actual: Chain) -> bool:
    return [rule_hash(rule) for rule in wanted.rules] == list(actual.rules)


def _same_shape(wanted: Set, actual: Set) -> bool:
    shapes = [(each.type, each.interval, each.data, each.timeout) for each in (wanted, actual)]
    return shapes[0] == shapes[1]


def _missing(of: Mapping[Element, str], there: Mapping[Element, str]) -> dict[Element, str]:
    return {key: data for key, data in of.items() if there.get(key) != data}


class _TableDiff:
    """One table, wanted and actual: what must go, and what must come."""

    def __init__(self, wanted: TableState, actual: TableState, new: bool) -> None:
        self.table: Table = wanted.table
        self.wanted, self.actual, self.new = wanted, actual, new
        self.dead_chains = [
            name
            for name, chain in actual.chains.items()
            if name not in wanted.chains or wanted.chains[name].hook != chain.hook
        ]
        self.changed_chains = [
            name
            for name, chain in wanted.chains.items()
            if name in actual.chains and name not in self.dead_chains and not _same_rules(chain, actual.chains[name])
        ]
        self.dead_sets = [
            name
            for name, there in actual.sets.items()
            if name not in wanted.sets or not _same_shape(wanted.sets[name], there)
        ]
        if self.dead_sets:
            # A set in use cannot be removed: its users, which we do not know from hashes, are all rebuilt.
            self.changed_chains = [n for n in wanted.chains if n in actual.chains and n not in self.dead_chains]
        self.dead_counters = sorted(actual.counters - wanted.counters)
        self.lost = {
            name: lost
            for name, there in actual.sets.items()
            # What leaves by itself is there by somebody's wish (compare): it is not a difference.
            if name not in self.dead_sets
            and not there.timeout
            and (lost := _missing(there.elements, wanted.sets[name].elements))
        }

    @property
    def restrictive(self) -> bool:
        """True where flows that are fast now might not be allowed to be, or not unguarded."""
        restricting_sets = [name for name in self.lost if name.startswith(LETTING_ON)]
        changed = [name for name in (*self.dead_chains, *self.changed_chains) if name != CLAMP]
        return bool(changed or self.dead_sets or restricting_sets) or any(
            not self._grows(name) for name in self.actual.flowtables
        )

    def _grows(self, name: str) -> bool:
        wanted, actual = self.wanted.flowtables.get(name), self.actual.flowtables[name]
        return wanted is not None and _like(wanted, actual) and wanted.devices >= actual.devices

    def removals(self, *, flush: bool) -> Iterator[Step]:
        table = self.table
        users = [name for name in _users(self.wanted) if name in self.actual.chains] if flush else []
        emptied = dict.fromkeys([*self.changed_chains, *users, *self.dead_chains])
        commands: list[Command] = [FlushChain(table, name) for name in emptied]
        commands += [DeleteChain(table, name) for name in self.dead_chains]
        if flush:
            commands += [DeleteFlowtable(table, name) for name in self.actual.flowtables]
        yield Step(_sentence("take out", table, "chain", [*emptied]), tuple(commands), flushes=flush)
        for name, lost in self.lost.items():
            keys = dict.fromkeys(lost, "")
            yield Step(f"take {len(lost)} elements out of {table} {name}", (DeleteElements(table, name, keys),))
        dead: list[Command] = [DeleteSet(table, name, self.actual.sets[name].keyword) for name in self.dead_sets]
        dead += [DeleteCounter(table, name) for name in self.dead_counters]
        names = [*self.dead_sets, *self.dead_counters]
        yield Step(_sentence("remove from", table, "set or counter", names), tuple(dead))

    def additions(self, *, flush: bool) -> Iterator[Step]:
        table, wanted, actual = self.table, self.wanted, self.actual
        if self.new:
            yield Step(f"make table {table}", (AddTable(table),))
        counters = sorted(wanted.counters - actual.counters)
        yield Step(
            _sentence("count in", table, "counter", counters), tuple(AddCounter(table, name) for name in counters)
        )
        for name, each in wanted.sets.items():
            if name not in actual.sets or name in self.dead_sets:
                yield Step(f"make {each.keyword} {table} {name}, {len(each.elements)} elements", (AddSet(table, each),))
            elif more := _missing(each.elements, actual.sets[name].elements):
                yield Step(f"add {len(more)} elements to {table} {name}", (AddElements(table, name, more),))
        for name, flowtable in wanted.flowtables.items():
            there = None if flush else actual.flowtables.get(name)
            if there is None or there != flowtable:
                devices = ", ".join(sorted(flowtable.devices))
                yield Step(f"flowtable {name} on {devices}", (AddFlowtable(table, flowtable),))
        users = _users(wanted) if flush else {}
        for name, chain in wanted.chains.items():
            commands: list[Command] = []
            if name not in actual.chains or name in self.dead_chains:
                commands.append(AddChain(table, name, chain.hook))
            elif name not in self.changed_chains and name not in users:
                continue
            commands += [AddRule(table, name, rule) for rule in chain.rules]
            yield Step(f"chain {table} {name}, {len(chain.rules)} rules", tuple(commands))


def _like(one: Flowtable, other: Flowtable) -> bool:
    return (one.hook, one.priority, one.counter) == (other.hook, other.priority, other.counter)


def _sentence(verb: str, table: Table, noun: str, names: list[str]) -> str:
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"{verb} {table}: {noun}{'s' if len(names) > 1 else ''} {shown}"
