"""The section `exporter`: where metrics are served, how many, and to whom."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic import model_validator as validator

from flowfast.config.problem import Fault, Faulty, faulty, quoted
from flowfast.config.section import Section
from flowfast.config.values import FilePath, Listen, Truth, endpoint, whole, words


class TlsVersion(StrEnum):
    """A version of TLS."""

    V12 = "1.2"
    V13 = "1.3"


def _version(value: object) -> TlsVersion:
    text = words(value, "a version of TLS", loose=True)
    if text not in list(TlsVersion):
        raise faulty(f"{quoted(text)} is not a version of TLS", "one of 1.2, 1.3")
    return TlsVersion(text)


class Tls(Section):
    """HTTPS, and who may come: files in PEM, which are read again when they change."""

    certfile: Annotated[FilePath, Field(description="The server's certificate, with the chain up to its CA.")]
    keyfile: Annotated[FilePath, Field(description="The certificate's key, without a password.")]
    client_cafile: Annotated[
        FilePath | None,
        Field(description="Certificates of the CAs whose clients may come. Without it, anybody may."),
    ] = None
    client_auth_required: Annotated[
        Truth | None,
        Field(
            description="Whether a client must show a certificate of one of these CAs: by default, where client_cafile "
            "is given. false: one that shows none may come too."
        ),
    ] = None
    min_version: Annotated[
        TlsVersion,
        PlainValidator(_version),
        WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]}),
        Field(description="The oldest version of TLS that is spoken: 1.2 or 1.3."),
    ] = TlsVersion.V12

    @property
    def requires_clients(self) -> bool:
        """Whether a client without a certificate is turned away."""
        return self.client_cafile is not None and self.client_auth_required is not False

    @validator(mode="after")
    def _trusts(self) -> "Tls":
        if self.client_auth_required and self.client_cafile is None:
            remedy = "name the CA that signs your scrapers' certificates: any public one would let everybody in"
            raise Faulty(Fault("missing, with client_auth_required", remedy, ("client_cafile",)))
        return self


class Exporter(Section):
    """The Prometheus exporter."""

    enabled: Annotated[Truth, Field(description="Whether `flowfast run` serves metrics.")] = True
    listen: Annotated[
        Listen,
        Field(
            description="Address and port to serve /metrics and the status page on; an IPv6 address in brackets "
            '("[::1]:9833").'
        ),
    ] = endpoint("127.0.0.1:9833")
    tls: Annotated[Tls | None, Field(description="Serve HTTPS, with this certificate. Left out: HTTP.")] = None
    per_sa: Annotated[
        Truth, Field(description="Whether to export series for each SA, not only for each tunnel. Many, at many SAs.")
    ] = False
    sa_limit: Annotated[
        int,
        PlainValidator(lambda value: whole(value, "a number of SAs", 1, 100_000)),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 100_000}),
        Field(description="How many SAs get series of their own with per_sa: those that carried most."),
    ] = 1000
