"""The HTTP server under the exporter, with TLS and client certificates.

It is the standard library's, as in prometheus_client, whose own would look up the name of the address it listens on: on
a router without DNS that takes seconds. TLS means what prometheus_client's options of the same names mean, except that
a client is only ever trusted for a CA that the config names; a handshake is done in the connection's own thread, so
that a client which says nothing keeps nobody waiting, and a certificate that was renewed is taken up by itself.
"""

import contextlib
import errno
import logging
import os
import socket
import ssl
import threading
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from flowfast.config.exporter import Tls, TlsVersion
from flowfast.config.values import Endpoint
from flowfast.model.errors import UsageError

log = logging.getLogger(__name__)

CONNECTIONS = 100
"""Connections at once; more are closed at once: scrapers are few, and threads cost memory."""
SILENCE = 30
"""Seconds; a client that says nothing must not hold a thread for ever."""

_VERSIONS = {TlsVersion.V12: ssl.TLSVersion.TLSv1_2, TlsVersion.V13: ssl.TLSVersion.TLSv1_3}
_REMEDIES = {
    errno.EADDRINUSE: "stop the program that listens there, or choose another port under exporter.listen",
    errno.EADDRNOTAVAIL: "choose an address of this router under exporter.listen",
    errno.EACCES: "choose a port above 1023 under exporter.listen, or run as root",
}


class Certificates:
    """The server's certificate, and whom it trusts. Raises UsageError, which names the file and what is wrong."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._stamp = self._files()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """For a new connection, with the files as they are now; as they were, where they cannot be loaded."""
        stamp = self._files()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = self._load()
                log.info("the exporter's certificate was renewed")
            except UsageError as error:
                log.warning("%s: going on with the certificate from before", error)
        return self._context

    def _files(self) -> tuple[object, ...]:
        names = (self._tls.certfile, self._tls.keyfile, self._tls.client_cafile)
        return tuple(_stamp(name) for name in names if name is not None)

    def _load(self) -> ssl.SSLContext:
        tls, context = self._tls, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[tls.min_version]
        _check(tls.certfile, "certfile")
        _check(tls.keyfile, "keyfile")
        try:
            context.load_cert_chain(tls.certfile, tls.keyfile, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            sentence = f"exporter.tls: {tls.certfile} with {tls.keyfile}: {_why(error)}"
            raise UsageError(
                f"{sentence} (PEM: the certificate with its chain, and its key without a password)"
            ) from None
        if tls.client_cafile is not None:
            _check(tls.client_cafile, "client_cafile")
            try:
                context.load_verify_locations(tls.client_cafile)
            except (ssl.SSLError, OSError) as error:
                raise UsageError(
                    f"exporter.tls.client_cafile: {tls.client_cafile}: {_why(error)} (PEM: certificates of CAs)"
                ) from None
            context.verify_mode = ssl.CERT_REQUIRED if tls.requires_clients else ssl.CERT_OPTIONAL
        return context


def _check(name: str, key: str) -> None:
    """A sentence of its own for what goes wrong most: OpenSSL does not say which file is missing."""
    try:
        with open(name, "rb"):  # noqa: PTH123 - to be refused as OpenSSL would be
            return
    except OSError as error:
        raise UsageError(f"exporter.tls.{key}: {name}: {os.strerror(error.errno or 0)}") from None


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or type(error).__name__


def _stamp(name: str) -> tuple[int, ...]:
    try:
        found = os.stat(name)  # noqa: PTH116 - a Path for each connection is no use
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


class _Handler(WSGIRequestHandler):
    timeout = SILENCE

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        log.debug(format, *args)


class Server(ThreadingMixIn, WSGIServer):
    """Listens when it is made. Raises UsageError where it cannot."""

    daemon_threads = True

    def __init__(self, at: Endpoint, certificates: Certificates | None = None) -> None:
        self.address_family = socket.AF_INET6 if at.address.version == 6 else socket.AF_INET
        self._certificates = certificates
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        try:
            super().__init__((str(at.address), at.port), _Handler)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            remedy = _REMEDIES.get(error.errno or 0, "choose another address under exporter.listen")
            raise UsageError(f"exporter.listen: cannot listen on {at}: {why} ({remedy})") from None

    def server_bind(self) -> None:
        """As HTTPServer does it, but without looking up a name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers in a thread, if there are not too many."""
        if not self._free.acquire(blocking=False):
            log.debug("%s was turned away: %d connections are open", client_address, CONNECTIONS)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Does the handshake first, where there is one to do."""
        if self._certificates is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(SILENCE)
        with self._certificates.context().wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)
            with contextlib.suppress(OSError):
                secure.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away, or did not get in."""
        log.debug("request of %s failed", client_address, exc_info=True)
