"""What a caller asks the kernel for, where the model cannot say it: an SA together with its keys.

Keys go one way: from here into a request, which is wiped once it is sent. No repr shows them, and no decoder makes one.
"""

from dataclasses import dataclass, field

from flowfast.model.sa import Direction, Encap, Iptfs, Lifetime, Mark, Mode, Offload, Replay, Selector

NO_LIMITS = Lifetime()
KeyBytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Aead:
    """Cipher and integrity in one, "rfc4106(gcm(aes))". `key` ends with the salt where the RFC has one (4 bytes)."""

    name: str
    key: KeyBytes = field(repr=False)
    icv_bits: int = 128


@dataclass(frozen=True, slots=True)
class Crypt:
    """A cipher, "cbc(aes)"."""

    name: str
    key: KeyBytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Auth:
    """An integrity algorithm, "hmac(sha256)", its ICV cut to so many bits."""

    name: str
    key: KeyBytes = field(repr=False)
    icv_bits: int = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class SAConfig:
    """An SA to be added or updated. Fields that SA has too mean the same there.

    `replay_window` in packets: 0 for no check, as an outbound SA with a direction must have it; more than 32 needs no
    ESN. `replay` sets the sequence state that the SA starts with, and takes the window's place.
    """

    src: str
    dst: str
    spi: int
    proto: int = 50
    mode: int = Mode.TUNNEL
    reqid: int = 0
    aead: Aead | None = None
    crypt: Crypt | None = None
    auth: Auth | None = None
    compression: str | None = None
    esn: bool = False
    replay_window: int = 0
    replay: Replay | None = None
    flags: int = 0
    extra_flags: int = 0
    selector: Selector | None = None
    lifetime: Lifetime = NO_LIMITS
    acquire_sequence: int = 0
    if_id: int = 0
    mark: Mark | None = None
    output_mark: Mark | None = None
    direction: Direction | None = None
    pcpu: int | None = None
    encap: Encap | None = None
    offload: Offload | None = None
    tfc_pad: int | None = None
    iptfs: Iptfs | None = None
    nat_keepalive_seconds: int | None = None
    mapping_threshold_seconds: int | None = None
    care_of_address: str | None = None

    def __str__(self) -> str:
        """How an error names it."""
        return sa_text(self.dst, self.spi, self.proto)


def sa_text(dst: str, spi: int, proto: int) -> str:
    """How an error names an SA, whose protocol is ESP unless it says otherwise."""
    return f"SA spi {spi:#010x} dst {dst}" + ("" if proto == 50 else f" proto {proto}")


def policy_text(selector: Selector, direction: Direction) -> str:
    """How an error names a policy."""
    return f"policy {direction} {selector.src} -> {selector.dst}"
