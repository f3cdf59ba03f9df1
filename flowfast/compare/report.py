"""The report of a comparison: one HTML file that needs nothing but itself."""

import json
import time
from importlib import import_module
from pathlib import Path

from flowfast.compare.result import WORDS, Result
from flowfast.compare.verdict import pairs_of
from flowfast.compare.view import rows, sa_rows, sure, times, tunnel_rows, verdict
from flowfast.page import check, page

__all__ = ["check", "render"]

TEMPLATE = Path(__file__).with_name("report.html.j2")


def render(result: Result) -> str:
    """The page. Raises Unavailable where jinja2 or matplotlib are missing."""
    check()
    pairs = pairs_of(result.windows)
    return page(
        TEMPLATE,
        {"times": times, "sure": sure},
        result=result,
        findings=result.findings,
        verdict=verdict(result),
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(result.started)),
        rows=rows(pairs, result.findings) if pairs else [],
        tunnels=tunnel_rows(pairs, result.findings) if pairs else [],
        sas=sa_rows(pairs),
        words=WORDS,
        plots=import_module("flowfast.compare.plots"),  # an extra
        fingerprint=json.dumps(result.fingerprint, indent=2),
    )
