"""TLS of the exporter: who gets in, what is said of files that do not do, and certificates that are renewed."""

import contextlib
import http.client
import socket
import ssl
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from flowfast.config.exporter import Tls
from flowfast.config.values import Endpoint
from flowfast.metrics.exporter import Exporter
from flowfast.model.errors import UsageError
from tests.unit.metrics.world import fixed

ANYWHERE = Endpoint(IPv4Address("127.0.0.1"), 0)


class Authority:
    """A CA in a folder, and the certificates that it signs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.cert = str(folder / "ca.pem")
        self._openssl(f"req -x509 {_KEY} -keyout ca.key -out ca.pem -subj /CN={folder.name} -days 2")

    def sign(self, name: str) -> tuple[str, str]:
        """Certificate and key of 127.0.0.1, under this name."""
        subject = f"-subj /CN={name} -addext subjectAltName=IP:127.0.0.1"
        self._openssl(f"req {_KEY} -keyout {name}.key -out {name}.csr {subject}")
        self._openssl(
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -out {name}.pem -days 2 -copy_extensions copy"
        )
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")

    def _openssl(self, command: str) -> None:
        subprocess.run(["openssl", *command.split()], cwd=self.folder, check=True, capture_output=True)


_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "theirs")


@contextlib.contextmanager
def serving(tls: Tls) -> Iterator[Exporter]:
    exporter = Exporter(ANYWHERE, tls=tls)
    exporter.start()
    exporter.publish(fixed())
    try:
        yield exporter
    finally:
        exporter.stop()


def get(
    exporter: Exporter, trust: str, client: tuple[str, str] | None = None, *, most: ssl.TLSVersion | None = None
) -> bytes:
    """The page. Raises OSError where the handshake fails."""
    context = ssl.create_default_context(cafile=trust)
    if client is not None:
        context.load_cert_chain(*client)
    if most is not None:
        context.maximum_version = most
    at = exporter.endpoint
    connection = http.client.HTTPSConnection(str(at.address), at.port, timeout=30, context=context)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read()
    finally:
        connection.close()


def tls(server: tuple[str, str], **more: object) -> Tls:
    return Tls.model_validate({"certfile": server[0], "keyfile": server[1], **more})


def test_serves_https_with_the_certificate(ours: Authority, theirs: Authority) -> None:
    with serving(tls(ours.sign("server"))) as exporter:
        assert b"flowfast_reconcile_total 12\n" in get(exporter, ours.cert)
        with pytest.raises(ssl.SSLCertVerificationError):
            get(exporter, theirs.cert)
        with socket.create_connection((str(exporter.endpoint.address), exporter.endpoint.port), 30) as plain:
            plain.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"flowfast" not in plain.recv(65536)


def test_only_clients_of_the_named_ca_get_in(ours: Authority, theirs: Authority) -> None:
    with serving(tls(ours.sign("server"), client_cafile=ours.cert)) as exporter:
        assert get(exporter, ours.cert, ours.sign("prometheus"))
        for client in (None, theirs.sign("prometheus")):
            with pytest.raises(OSError):
                get(exporter, ours.cert, client)


def test_clients_without_a_certificate_may_come_where_the_config_says_so(ours: Authority, theirs: Authority) -> None:
    with serving(tls(ours.sign("server"), client_cafile=ours.cert, client_auth_required=False)) as exporter:
        assert get(exporter, ours.cert)
        with pytest.raises(OSError):
            get(exporter, ours.cert, theirs.sign("prometheus"))


def test_older_versions_are_turned_away(ours: Authority) -> None:
    with serving(tls(ours.sign("server"), min_version="1.3")) as exporter:
        assert get(exporter, ours.cert)
        with pytest.raises(OSError):
            get(exporter, ours.cert, most=ssl.TLSVersion.TLSv1_2)


def test_renewed_certificate_is_taken_up_and_a_broken_one_is_not(
    ours: Authority, theirs: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def install(pair: tuple[str, str]) -> None:
        cert.write_text(Path(pair[0]).read_text())
        key.write_text(Path(pair[1]).read_text())

    install(ours.sign("server"))
    with serving(tls((str(cert), str(key)))) as exporter:
        assert get(exporter, ours.cert)
        install(theirs.sign("server"))
        assert get(exporter, theirs.cert)
        cert.write_text("half of a certifi")
        assert get(exporter, theirs.cert)
        assert "going on with the certificate from before" in caplog.text


def test_client_that_says_nothing_keeps_nobody_waiting(ours: Authority) -> None:
    with serving(tls(ours.sign("server"))) as exporter:
        at = (str(exporter.endpoint.address), exporter.endpoint.port)
        with socket.create_connection(at), socket.create_connection(at):
            assert get(exporter, ours.cert)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda a, d: (str(d / "none.pem"), a.sign("s")[1]), r"exporter\.tls\.certfile: .*none\.pem: No such file"),
        (lambda a, d: (a.sign("s")[0], str(d)), r"exporter\.tls\.keyfile: .*: Is a directory"),
        (lambda a, _: (a.sign("s")[0], a.sign("t")[1]), r"exporter\.tls: .*s\.pem with .*t\.key: key values mismatch"),
        (lambda a, _: (a.sign("s")[1], a.sign("s")[1]), r"exporter\.tls: .*\(PEM: the certificate with its chain"),
    ],
)
def test_files_that_do_not_do_are_one_line_that_names_them(
    ours: Authority, tmp_path: Path, make: object, line: str
) -> None:
    with pytest.raises(UsageError, match=line) as caught:
        Exporter(ANYWHERE, tls=tls(make(ours, tmp_path))).start()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_ca_file_that_holds_none_is_one_line(ours: Authority) -> None:
    cert, key = ours.sign("server")
    with pytest.raises(UsageError, match=r"exporter\.tls\.client_cafile: .*\(PEM: certificates of CAs\)"):
        Exporter(ANYWHERE, tls=tls((cert, key), client_cafile=key)).start()
