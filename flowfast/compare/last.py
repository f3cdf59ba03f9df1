"""The last result, for the exporter: a small file in /run/flowfast, one for each network namespace."""

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

from flowfast.apply import journal
from flowfast.compare.estimate import Estimate
from flowfast.compare.result import Result
from flowfast.model.comparison import Comparison, Factor

log = logging.getLogger(__name__)


class Last:
    """Where the last comparison of this network namespace is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or journal.FOLDER

    @property
    def path(self) -> Path:
        """The file."""
        return self._folder / f"compare-{Path('/proc/thread-self/ns/net').stat().st_ino}.json"

    def write(self, comparison: Comparison) -> None:
        """Replaces what was there; whoever reads sees the one or the other. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(asdict(comparison)))
        new.replace(self.path)

    def read(self) -> Comparison | None:
        """The last one; None if there was none since the router started, or it cannot be read."""
        try:
            data = json.loads(self.path.read_text())
            tunnels = {name: Factor(**each) for name, each in data["tunnels"].items()}
            router = Factor(**data["router"]) if data["router"] else None
            return Comparison(data["taken_at"], router, tunnels)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.debug("%s: %s", self.path, error)
            return None


def comparison(result: Result) -> Comparison:
    """What others show of it."""
    findings = result.findings
    tunnels = {each.tunnel: factor for each in findings.tunnels if (factor := _factor(each.cpu)) is not None}
    return Comparison(result.started, _factor(findings.factor), tunnels)


def _factor(estimate: Estimate | None) -> Factor | None:
    return None if estimate is None else Factor(estimate.value, estimate.low, estimate.high)
