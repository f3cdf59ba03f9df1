"""The exporter: serves the last published snapshot over HTTP. No scrape asks the kernel anything.

The server is the standard library's, as in prometheus_client, whose own would look up the name of the address it
listens on: on a router without DNS that takes seconds. Answers are always text format 0.0.4, which every Prometheus
takes; OpenMetrics would cost several times the time, and say nothing more here.
"""

import errno
import gzip
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from flowfast.config.problem import Faulty
from flowfast.config.values import Endpoint, endpoint
from flowfast.metrics.collectors import build, collectors
from flowfast.metrics.collectors.sas import LIMIT
from flowfast.metrics.registry import Registry
from flowfast.metrics.text import CONTENT_TYPE, render
from flowfast.model.errors import UsageError
from flowfast.model.snapshot import Snapshot

log = logging.getLogger(__name__)

_WELCOME = b'<!doctype html><title>flowfast</title><p><a href="/metrics">metrics</a> of this router\n'
_REMEDIES = {
    errno.EADDRINUSE: "stop the program that listens there, or choose another port under exporter.listen",
    errno.EADDRNOTAVAIL: "choose an address of this router under exporter.listen",
    errno.EACCES: "choose a port above 1023 under exporter.listen, or run as root",
}


class Exporter:
    """Metrics on `listen` ("127.0.0.1:9833", "[::1]:9833"). Raises UsageError where that is no address and port.

    `publish` may be called from another thread than the one that serves; a scrape sees one snapshot or the next.
    """

    def __init__(self, listen: str | Endpoint, *, per_sa: bool = False, sa_limit: int = LIMIT) -> None:
        try:
            self.endpoint = endpoint(listen)
        except Faulty as error:
            raise UsageError(f"exporter.listen: {error}") from None
        self._registry = Registry(collectors(per_sa=per_sa, sa_limit=sa_limit), {"build": build.collect})
        self._snapshot: Snapshot | None = None
        self._page: _Page | None = None
        self._rendering = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def publish(self, snapshot: Snapshot) -> None:
        """From now on scrapes see this snapshot. Waits for no scrape."""
        self._snapshot = snapshot

    def start(self) -> None:
        """Listens, and serves in threads of its own. Raises UsageError where it cannot listen."""
        try:
            self._server = _Server(self.endpoint)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            remedy = _REMEDIES.get(error.errno or 0, "choose another address under exporter.listen")
            raise UsageError(f"exporter.listen: cannot listen on {self.endpoint}: {why} ({remedy})") from None
        self.endpoint = self.endpoint._replace(port=self._server.server_port)
        self._server.set_app(self._answer)
        self._thread = threading.Thread(target=self._server.serve_forever, name="exporter", daemon=True)
        self._thread.start()
        log.info("metrics on http://%s/metrics", self.endpoint)

    def stop(self) -> None:
        """Closes the socket; scrapes that are being answered end by themselves. Without a start it does nothing."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def render(self) -> bytes:
        """What a scrape gets now, uncompressed."""
        return self._rendered().text

    def _rendered(self) -> "_Page":
        with self._rendering:  # one rendering serves all that scrape the same snapshot
            snapshot = self._snapshot
            if self._page is None or self._page.snapshot is not snapshot:
                self._page = _Page(snapshot, render(self._registry.collect(snapshot)))
            return self._page

    def _answer(self, request: Mapping[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
        path, method = request["PATH_INFO"], request["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            start("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Length", "0")])
            return []
        if path not in ("/", "/metrics"):
            start("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
            return []
        headers = [("Content-Type", CONTENT_TYPE if path == "/metrics" else "text/html; charset=utf-8")]
        body = _WELCOME
        if path == "/metrics":
            page = self._rendered()
            body = page.text
            if "gzip" in request.get("HTTP_ACCEPT_ENCODING", ""):
                headers.append(("Content-Encoding", "gzip"))
                body = page.gzipped
        start("200 OK", [*headers, ("Content-Length", str(len(body)))])
        return [body] if method == "GET" else []


@dataclass(frozen=True)
class _Page:
    """A rendered snapshot."""

    snapshot: Snapshot | None
    text: bytes

    @cached_property
    def gzipped(self) -> bytes:
        return gzip.compress(self.text, 1)  # the fastest level already makes a tenth of it


class _Handler(WSGIRequestHandler):
    timeout = 30  # seconds; a client that says nothing must not hold a thread for ever

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        log.debug(format, *args)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, at: Endpoint) -> None:
        self.address_family = socket.AF_INET6 if at.address.version == 6 else socket.AF_INET
        super().__init__((str(at.address), at.port), _Handler)

    def server_bind(self) -> None:
        """As HTTPServer does it, but without looking up a name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("request of %s failed", client_address, exc_info=True)
