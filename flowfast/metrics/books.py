"""The books: everything that is counted over time, and kept over a restart of the controller.

What is published is written down before, as of the same moment: so no total that anybody has seen is ever taken back,
also after kill -9, and what the kernel goes on counting meanwhile is added once. What an SA counted at its end is
written at once, because nobody can ask for it again.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

from flowfast.metrics.ledger import Ledger, LedgerState
from flowfast.metrics.paths import PathBytes
from flowfast.metrics.store import Store, Written
from flowfast.model.reason import Reason
from flowfast.model.sa import SA, Direction
from flowfast.model.snapshot import Snapshot, Traffic
from flowfast.model.tunnel import Tunnel

log = logging.getLogger(__name__)


class Books:
    """A ledger and the bytes by path. With a store, they go on from what it holds."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store
        self._ledger, self._paths = Ledger(), PathBytes()
        self._as_of_look: LedgerState | None = None
        """What is to be written next: the ledger when its totals were told. Ends that come later follow in `_later`."""
        self._later: list[LedgerState] = []
        self._written = False
        self.problem: Reason | None = None
        """Why a restart would lose counts, if it would."""
        if store is not None:
            self._restore(store)

    @property
    def ends_missed(self) -> int:
        """SAs that ended without anybody telling their last counts."""
        return self._ledger.ends_missed

    def totals(self, tunnels: Iterable[Tunnel]) -> Mapping[tuple[str, Direction], Traffic]:
        """Adds what the SAs of a dump have counted; all totals so far."""
        self._ledger.update(tunnels)
        if self._store is not None:
            self._as_of_look = self._ledger.state()
            self._later.clear()
        return self._ledger.totals()

    def ended(self, sa: SA, netns: str | None = None) -> None:
        """Adds the last counts of an SA."""
        changed = self._ledger.deleted(sa, netns)
        if self._store is None or not changed.sas:
            return
        if self._as_of_look is not None:
            self._later.append(changed)
        elif self._written:
            self._try(self._store, changed)

    async def close(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with its bytes by path; written down when this returns."""
        by_path = self._paths.update(snapshot)
        if self._store is not None and self._as_of_look is not None:
            written = Written(self._as_of_look, self._paths.state(), self.ends_missed)
            await asyncio.to_thread(self._try, self._store, written)
            self._as_of_look = None
            for changed in self._later:
                self._try(self._store, changed)
            self._later.clear()
        problems = (self.problem,) if self.problem is not None else ()
        return replace(snapshot, by_path=by_path, failures=(*snapshot.failures, *problems))

    def _restore(self, store: Store) -> None:
        try:
            found = store.read()
            if found is not None:
                self._ledger.restore(found.ledger)
                self._ledger.ends_missed = found.ends_missed
                self._paths.restore(found.paths)
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s cannot be read (%s): counting begins anew", store.path, error)
            self._ledger, self._paths = Ledger(), PathBytes()

    def _try(self, store: Store, what: Written | LedgerState) -> None:
        try:
            if isinstance(what, Written):
                store.write(what)
                self._written = True
            else:
                store.append(what)
            self.problem = None
        except OSError as error:
            sentence = f"counts are not written down, a restart would lose them: {error.strerror}"
            problem = Reason("COUNTS_NOT_KEPT", str(store.path), sentence, "make the folder writable, with room in it")
            if self.problem != problem:
                log.warning("%s", problem)
            self.problem = problem
