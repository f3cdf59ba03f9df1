"""The loop of `flowfast run`: observe, plan, apply, verify; and again whenever the kernel says that something changed.

One round does all of it, and does nothing where nothing changed; so every event, lost events and the clock all lead to
the same place. Only one thing does not wait for a round: when somebody else changes nftables, every flow leaves the
flowtable at once, so that the operator's change holds for connections that are already fast; so what a round does that
takes long is done in threads. SA events mostly feed the counters only (news.py): the kernel itself takes a flow off an
SA that is gone (xfrm_bundle_ok, net/xfrm/xfrm_policy.c), and the flow's next packet finds the new one.

Stopping leaves the kernel as it is: the router goes on forwarding, fast.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from flowfast.apply import Outcome, Writer, converge
from flowfast.apply.heard import Heard
from flowfast.bulking import Bulking
from flowfast.config.schema import Config
from flowfast.kernel import Kernel, LinkChanged, NewGeneration
from flowfast.kernel.xfrm import Event as XfrmEvent
from flowfast.kernel.xfrm import PolicyAdded, PolicyUpdated, Resync, SaDeleted, SaExpired
from flowfast.metrics.books import Books
from flowfast.model.desired import Desired
from flowfast.model.errors import FlowfastError
from flowfast.model.reason import Reason, Severity
from flowfast.model.snapshot import Reconciles, Snapshot, without_sas
from flowfast.model.state import Feature, RouterState
from flowfast.news import Known
from flowfast.observe import observe
from flowfast.plan.fallback import fallen, in_nic
from flowfast.plan.health import health
from flowfast.plan.planner import plan
from flowfast.snapshot import History, look
from flowfast.steering import Steersman

log = logging.getLogger(__name__)

RETRY_SECONDS = (1, 2, 5, 10, 30)
"""After a failed round; the last one again and again."""
LEVELS = {Severity.INFO: logging.INFO, Severity.WARNING: logging.WARNING, Severity.ERROR: logging.ERROR}

Event = TypeVar("Event")


class Controller:
    """One router. Calls `on_snapshot` after every round, of which there is one at least every `interval` seconds."""

    def __init__(
        self,
        kernel: Kernel,
        config: Config,
        features: Mapping[str, Feature],
        *,
        on_snapshot: Callable[[Snapshot], None] = lambda _snapshot: None,
        interval: float = 10.0,
        books: Books | None = None,
        heard: Heard | None = None,
    ) -> None:
        self.kernel, self.config, self.features = kernel, config, features
        self.reconciles = Reconciles()
        self._books = books or Books()
        self._on_snapshot, self._interval = on_snapshot, interval
        self.busy = asyncio.Lock()
        """Held by a round while it works."""
        self._wake = asyncio.Event()
        self._writer = Writer(kernel.nft)
        self._known: Known | None = None
        """What events are news against; None while a round is due that looks at everything."""
        self._unjudged: list[XfrmEvent] = []
        """Events that came meanwhile: of those before the round's first look nothing is left to be seen after it."""
        self._state: RouterState | None = None
        """The last one, of which only the ruleset may still be true."""
        self._moved = False
        """Whether a device came, went or changed since that state."""
        self._snapshot: Snapshot | None = None
        self._failures = 0
        self._heard = heard
        self._unflushed = False
        self._complaint: Reason | None = None
        self._steersman = Steersman()
        self._bulking = Bulking(kernel, config.bulk, wake=self._wake.set)

    async def run(self) -> None:
        """Converges, then follows the kernel's events; returns only by cancellation."""
        # Listening begins before the first look, so that nothing between the two is missed.
        with self.kernel.nft.changes() as generations, self.kernel.links.changes() as links:
            async with self.kernel.xfrm.events() as xfrm:
                self._catch_up()
                await self.round()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_follow(generations, self._foreign))
                    tasks.create_task(_follow(links, self._link))
                    tasks.create_task(_follow(xfrm, self._xfrm))
                    for netns in self.config.underlay_netns:
                        tasks.create_task(self._underlay(netns))
                    if self.config.steering.on:
                        tasks.create_task(self._steersman.watch(self.kernel, self._interval))
                    if self._bulking.watches:
                        tasks.create_task(self._bulking.watch())
                    await self._loop()

    def complain(self, reason: Reason) -> None:
        """Something about this controller that no round finds out: it is among the failures that are published."""
        self._complaint = reason
        self._wake.set()

    async def _loop(self) -> None:
        while True:
            wait = self._interval
            if self._failures:
                wait = min(wait, RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS)) - 1])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
                # One change of the operator's is many events: a rekey makes a dozen.
                await asyncio.sleep(self.config.loop.debounce_ms / 1000)
            await self.round()

    # --- events --------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Has the first round take all flows off, if nftables changed while no controller was there to see it."""
        if self._heard is not None and self._heard.read() != self.kernel.nft.generation():
            log.info("nftables may have changed while flowfast did not run: all flows off the flowtable")
            self._unflushed = True

    async def _foreign(self, event: NewGeneration) -> None:
        if not event.own:
            if event.generation is None:
                self._lost("nftables")
            log.info("nftables changed by %s: all flows off the flowtable", event.process or "somebody")
            await self._flush()
            self._wake.set()
        if self._heard is not None and event.generation is not None and not self._unflushed:
            self._heard.keep(event.generation)

    async def _link(self, event: LinkChanged) -> None:
        if event.link is None:
            self._lost("links")
        self._moved = True
        self._wake.set()

    async def _xfrm(self, event: XfrmEvent) -> None:
        if isinstance(event, SaDeleted) or (isinstance(event, SaExpired) and event.hard):
            self._books.ended(event.sa)
        if isinstance(event, Resync):
            self._lost("xfrm")
        elif self._known is None:
            self._unjudged.append(event)
        elif not self._known.changed_by(event):
            return
        if self.config.offload.plain and isinstance(event, PolicyAdded | PolicyUpdated):
            # What crosses in the clear and fast may be protected from now on. The kernel sees to it by itself for
            # most flows (rt_genid_bump), not for those that it sends straight to a device (XMIT_DIRECT).
            await self._flush()
        if self._known is not None or isinstance(event, Resync):
            self._known = None
            self._wake.set()

    async def _underlay(self, netns: str) -> None:
        """Hears of the SAs that end in another network namespace, also once it is there again."""
        while True:
            try:
                async with self.kernel.xfrm_in(netns) as there, there.events() as events:
                    async for event in events:
                        if isinstance(event, SaDeleted) or (isinstance(event, SaExpired) and event.hard):
                            self._books.ended(event.sa, netns)
            except FlowfastError as error:
                log.debug("the SAs of network namespace %s cannot be followed now: %s", netns, error)
            await asyncio.sleep(self._interval)

    def _lost(self, source: str) -> None:
        log.warning("events of %s were lost: looking at everything again", source)
        self.reconciles = replace(self.reconciles, events_lost=self.reconciles.events_lost + 1)

    async def _flush(self) -> None:
        try:
            flushed = await self._writer.flush()
            self._unflushed = False
            self.reconciles = replace(self.reconciles, flushes=self.reconciles.flushes + flushed)
        except FlowfastError as error:
            # Our tables are not what they were (`nft flush ruleset`, a device gone): the next round sees to it.
            log.warning("flows could not be taken off at once: %s", error)
            self._unflushed = True

    # --- rounds --------------------------------------------------------------------------------------------------

    async def round(self) -> None:
        """Observes, plans, applies, verifies, once. An error is logged, counted and tried again."""
        async with self.busy:
            await self._round()

    async def _round(self) -> None:
        self._wake.clear()
        self._unjudged.clear()
        started = time.monotonic()
        netns = self.config.underlay_netns
        try:
            known = None if self._moved else self._state
            self._moved = False
            state = self._bulking.told(await observe(self.kernel, self.features, netns, known=known))
            desired = await asyncio.to_thread(plan, state, self.config)
            if self._snapshot is not None and desired.ruleset == self._snapshot.desired.ruleset:
                desired = replace(desired, ruleset=self._snapshot.desired.ruleset)  # held once: 20 MB of 10 000 tunnels
            desired = self._bulking.overtaken(state, desired)
            outcome = await converge(self.kernel, desired, state, netns, writer=self._writer)
            self._state = replace(outcome.state, sas=(), policies=(), underlay={})
            if self._bulking.done(desired, outcome.turned) or outcome.again:
                self._wake.set()
            if self._unflushed:
                await self._writer.flush()
                self._unflushed = False
            self._done(outcome, time.monotonic() - started)
            tunnels = [path.tunnel for path in desired.paths]
            self._know(Known(outcome.state.policies, tunnels, steering=self.config.steering.on))
            await self._publish(desired, outcome)
        except FlowfastError as error:
            log.error("this round failed: %s", error)
            self._failures += 1
            self.reconciles = replace(
                self.reconciles, total=self.reconciles.total + 1, failed=self.reconciles.failed + 1
            )

    def _know(self, known: Known) -> None:
        if any(map(known.changed_by, self._unjudged)):
            self._wake.set()
        elif not self._wake.is_set():
            self._known = known

    async def _publish(self, desired: Desired, outcome: Outcome) -> None:
        totals = self._books.totals(path.tunnel for path in desired.paths)
        history = History(totals, self.reconciles, self._books.ends_missed)
        state, failures = self._bulking.told(outcome.state), (*outcome.failures, *outcome.refused)
        looked = await look(self.kernel, state, desired, failures, history, full=True)
        snapshot, stale = self._steersman.judge(self._snapshot, await self._books.close(looked))
        self._steersman.remember(self.kernel.machine, snapshot)
        if stale:
            log.info("flows may be on SAs of other CPUs: all flows off the flowtable, to be learnt anew")
            await self._flush()
        if self._complaint is not None:
            snapshot = replace(snapshot, failures=(self._complaint, *snapshot.failures))
        known: set[tuple[str, str]] = set()
        if self._snapshot is not None:
            odd = (*health(self._snapshot, snapshot), *fallen(self._snapshot, snapshot))
            snapshot = replace(snapshot, failures=(*snapshot.failures, *odd))
            known = {(reason.code, reason.object) for reason in self._snapshot.reasons}
        for reason in snapshot.reasons:
            if (reason.code, reason.object) not in known:
                log.log(LEVELS[reason.severity], "%s", reason)
        # SAs are compared with those before where CPUs or NICs have theirs; else two generations are never held.
        self._snapshot = snapshot if self.config.steering.on else without_sas(snapshot, keep=in_nic)
        self._on_snapshot(snapshot)

    def _done(self, outcome: Outcome, seconds: float) -> None:
        self._failures = 0 if outcome.held else self._failures + 1
        done = self.reconciles
        self.reconciles = replace(
            done,
            total=done.total + 1,
            failed=done.failed + (not outcome.held),
            changes=done.changes + bool(outcome.steps or outcome.turned),
            last_success=time.time() if outcome.held else done.last_success,
            last_seconds=seconds,
        )
        for done_now in (*(step.what for step in outcome.steps), *outcome.turned):
            log.info("%s", done_now)


async def _follow(events: AsyncIterator[Event], react: Callable[[Event], Awaitable[None]]) -> None:
    async for event in events:
        await react(event)
