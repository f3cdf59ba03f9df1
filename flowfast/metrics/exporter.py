"""The exporter: serves the last published snapshot over HTTP, as metrics and as a page. No scrape asks the kernel.

Answers are always text format 0.0.4, which every Prometheus takes; OpenMetrics would cost several times the time, and
say nothing more here.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flowfast.config.exporter import Tls
from flowfast.config.problem import Faulty
from flowfast.config.values import Endpoint, endpoint
from flowfast.metrics.collectors import build, collectors
from flowfast.metrics.collectors.sas import LIMIT
from flowfast.metrics.history import History
from flowfast.metrics.page.status import headers, status_page
from flowfast.metrics.registry import PATIENCE, Page, Registry
from flowfast.metrics.server import Certificates, Server
from flowfast.metrics.text import CONTENT_TYPE
from flowfast.model.errors import UsageError
from flowfast.model.snapshot import Snapshot, without_sas

log = logging.getLogger(__name__)

Answer = tuple[str, list[tuple[str, str]], Sequence[bytes]]
"""Status, headers, body in parts."""


class Exporter:
    """Metrics on `listen` ("127.0.0.1:9833", "[::1]:9833"). Raises UsageError where that is no address and port.

    `publish` may be called from another thread than the one that serves; a scrape sees one snapshot or the next.
    """

    def __init__(
        self, listen: str | Endpoint, *, tls: Tls | None = None, per_sa: bool = False, sa_limit: int = LIMIT
    ) -> None:
        try:
            self.endpoint = endpoint(listen)
        except Faulty as error:
            raise UsageError(f"exporter.listen: {error}") from None
        self.history = History()
        self._registry = Registry(collectors(per_sa=per_sa, sa_limit=sa_limit), {"build": build.collect})
        self._tls = tls
        self._shown: Snapshot | None = None
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def publish(self, snapshot: Snapshot) -> None:
        """From now on scrapes see this snapshot. Waits for no scrape.

        Nothing is rendered until somebody asks, unless there are so many SAs that nobody should hold them until then.
        """
        self.history.update(snapshot)
        self._shown = without_sas(snapshot)
        self._registry.publish(snapshot, at_once=self._shown is not snapshot)

    def start(self) -> None:
        """Listens, and serves in threads of its own. Raises UsageError where it cannot, or for a bad certificate."""
        certificates = Certificates(self._tls) if self._tls is not None else None
        self._server = Server(self.endpoint, certificates)
        self.endpoint = self.endpoint._replace(port=self._server.server_port)
        self._server.set_app(self._respond)
        self._thread = threading.Thread(target=self._server.serve_forever, name="exporter", daemon=True)
        self._thread.start()
        log.info("metrics on %s://%s/metrics", "http" if certificates is None else "https", self.endpoint)

    def stop(self) -> None:
        """Closes the socket; scrapes that are being answered end by themselves. Without a start it does nothing."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def render(self) -> bytes:
        """What a scrape gets now, uncompressed."""
        return self.scraped().text

    def scraped(self, patience: float = PATIENCE) -> Page:
        """The page that a scrape gets which waits so many seconds at most for collectors that are not done."""
        return self._registry.page(patience)

    def _respond(self, request: Mapping[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
        status, more, body = self._answer(request)
        start(status, [*more, ("Content-Length", str(sum(map(len, body))))])
        return body if request["REQUEST_METHOD"] == "GET" else []

    def _answer(self, request: Mapping[str, Any]) -> Answer:
        path = request["PATH_INFO"]
        if request["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return "405 Method Not Allowed", [("Allow", "GET, HEAD")], ()
        if path == "/metrics":
            return self._metrics(request)
        if path == "/":
            page = status_page(self._shown, self.history, request.get("QUERY_STRING", ""))
            return "200 OK", [("Content-Type", "text/html; charset=utf-8"), *headers()], (page,)
        return "404 Not Found", [("Content-Type", "text/plain")], ()

    def _metrics(self, request: Mapping[str, Any]) -> Answer:
        page = self.scraped(_patience(request.get("HTTP_X_PROMETHEUS_SCRAPE_TIMEOUT_SECONDS", "")))
        kind = ("Content-Type", CONTENT_TYPE)
        if "gzip" in request.get("HTTP_ACCEPT_ENCODING", ""):
            return "200 OK", [kind, ("Content-Encoding", "gzip")], (page.gzipped,)
        return "200 OK", [kind], (page.text,)


def _patience(timeout: str) -> float:
    """Half of what Prometheus says it will wait, if that is less than ours."""
    try:
        said = float(timeout)
    except ValueError:
        return PATIENCE
    return min(PATIENCE, said / 2) if said > 0 else PATIENCE
