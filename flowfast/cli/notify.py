"""Tells systemd how `flowfast run` is: sd_notify(3), spoken directly; it is one datagram. Without systemd, nothing.

READY is said once the controller has looked at the router; or after a while, where it cannot: it goes on trying, and a
restart would change nothing. The watchdog is told as long as the event loop turns.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

PATIENCE = 30.0
"""Seconds after which it is said to be ready, whatever the first rounds came to. systemd waits for 90."""


@dataclass(frozen=True, slots=True)
class Notifier:
    """Where to say it, and how often the watchdog wants to hear, in seconds; None: nowhere, never."""

    address: str | None = None
    every: float | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Notifier":
        """From NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        span = environment.get("WATCHDOG_USEC", "")
        every = int(span) / 2e6 if watched and span.isdecimal() and int(span) else None
        return cls(environment.get("NOTIFY_SOCKET") or None, every)

    def say(self, state: str) -> None:
        """Sends it, without waiting for anybody. That nobody listens is no reason to stop routing."""
        if self.address is None:
            return
        name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(state.encode(), socket.MSG_DONTWAIT, name)

    async def watch(self, ready: asyncio.Event) -> None:
        """Says READY when `ready` is set, and that all is well again and again; returns only by cancellation."""
        keeping = asyncio.ensure_future(self._keep())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await ready.wait()
            self.say("READY=1")
            await keeping
        finally:
            keeping.cancel()

    async def _keep(self) -> None:
        while self.every is not None:
            self.say("WATCHDOG=1")
            await asyncio.sleep(self.every)
        await asyncio.Event().wait()
