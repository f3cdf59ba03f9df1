"""Desired -> kernel: safe transactions, a look at what the kernel really holds, a retreat where that is not it."""

from flowfast.apply.apply import Outcome, converge, remove
from flowfast.apply.verify import verify
from flowfast.apply.writer import Writer

__all__ = ["Outcome", "Writer", "converge", "remove", "verify"]
