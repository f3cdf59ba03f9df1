"""One flowfast that changes things for each network namespace.

The lock is an abstract unix socket: the kernel keeps those apart by network namespace (unix(7)), lets go of them
however the process ends, and tells whoever asks which process holds it.
"""

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator

from flowfast.model.errors import FlowfastError

NAME = "\0flowfast"
COMPARING = "\0flowfast-compare"
"""Of `flowfast compare`, which runs beside a controller, but never twice."""


@contextlib.contextmanager
def only_one(name: str | None = None) -> Iterator[None]:
    """Holds this network namespace's lock (NAME, or another). Raises FlowfastError, with the holder's process id,
    where another does."""
    name = name or NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        try:
            lock.bind(name)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            what = "flowfast compare" if name == COMPARING else "flowfast"
            raise FlowfastError(f"{what} is running here already (process {_holder(name)}): stop it first") from None
        lock.listen(1)
        yield


def _holder(name: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ask:
        ask.settimeout(1)
        try:
            ask.connect(name)
            pid, _, _ = struct.unpack("3i", ask.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            return "unknown"
        return str(pid)
