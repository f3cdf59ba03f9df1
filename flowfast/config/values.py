"""The leaves of the schema: what each kind of value may be, and the sentence that says what it should have been.

Each type is the Python type, how to read it from a Scalar (or from Python code), and its JSON Schema.
"""

import re
from collections.abc import Hashable
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic.config import JsonDict

from flowfast.config.problem import Fault, Faulty, faulty, quoted
from flowfast.config.scalar import Kind, found, scalar

U32 = 0xFFFF_FFFF
WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]{0,18})|0x[0-9a-fA-F]{1,16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

_Item = TypeVar("_Item", bound=Hashable)
_Choice = TypeVar("_Choice", bound=StrEnum)


def words(value: object, expected: str, *, loose: bool = False) -> str:
    """The text of a value that must be text. `loose` takes any scalar as it is written, for what is checked further.

    Raises Faulty for what YAML reads as something else: another reader of the file would not see text.
    """
    one = scalar(value)
    if one is not None and (one.kind is Kind.TEXT or (loose and one.kind is not Kind.NOTHING)):
        return one.text
    remedy = ""
    if one is not None and one.text:
        remedy = f"YAML takes {one.text} for {one.kind}: write {quoted(one.text)} if the word is meant"
    raise faulty(f"expected {expected}, found {found(value)}", remedy)


def is_number(value: object) -> bool:
    """True for what YAML takes for a number, which then has to be one."""
    one = scalar(value)
    return one is not None and one.kind is Kind.NUMBER


def whole(value: object, expected: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`, decimal or 0x hexadecimal."""
    one = scalar(value)
    if one is None or one.kind is not Kind.NUMBER:
        hint = "write it without quotes" if one is not None and WHOLE.fullmatch(one.text) else ""
        raise faulty(f"expected {expected}, found {found(value)}", hint)
    if not WHOLE.fullmatch(one.text):
        raise faulty(f"expected {expected}, found {quoted(one.text)}", "write it in plain decimal digits, or as 0x2a")
    number = int(one.text, 0)
    if not low <= number <= high:
        raise faulty(f"{one.text} is out of range, expected {expected} from {low} to {high}")
    return number


def truth(value: object) -> bool:
    """True or false, in any of the words that YAML 1.1 has for them."""
    one = scalar(value)
    if one is None or one.kind is not Kind.BOOLEAN:
        hint = "write it without quotes" if one is not None and one.text in ("true", "false") else ""
        raise faulty(f"expected true or false, found {found(value)}", hint)
    return one.text.lower() in ("true", "yes", "on")


def device_name(value: object) -> str:
    """The name of one network device."""
    name = words(value, "a device name")
    if is_glob(name):
        raise faulty(f"{quoted(name)} is a glob, expected the name of one device")
    return _device(name, 15)


def device_pattern(value: object) -> str:
    """The name of a network device, or a glob of names."""
    name = words(value, "a device name or glob")
    return _device(name, 64 if is_glob(name) else 15)


def _device(name: str, limit: int) -> str:
    """The name, under the rules of dev_valid_name() (net/core/dev.c), and without what nft cannot write in quotes."""
    if len(name.encode()) > limit:
        raise faulty(f"{quoted(name)} is too long: the name of a device has at most 15 bytes")
    bad = next((letter for letter in name if letter in '/:"\\' or letter.isspace() or not letter.isprintable()), None)
    if bad is not None:
        raise faulty(f"{quoted(name)} cannot be the name of a device: it has the character {bad!a} in it")
    if name in ("", ".", ".."):
        raise faulty(f"{quoted(name)} cannot be the name of a device")
    return name


def is_glob(name: str) -> bool:
    """True for a pattern with * ? or [ in it."""
    return any(letter in name for letter in "*?[")


def tunnel_name(value: object) -> str:
    """A name that can stand in a metric's label, in the name of an nft object and in a shell, unquoted."""
    name = words(value, "the name of a tunnel")
    if not _NAME.fullmatch(name):
        raise faulty(
            f"{quoted(name)} cannot be the name of a tunnel",
            "letters, digits, _ . and -, at most 63, a letter or digit first",
        )
    return name


def netns_name(value: object) -> str:
    """A name below /run/netns, as `ip netns` gives it."""
    name = words(value, "the name of a network namespace")
    if not name or "/" in name or name in (".", "..") or len(name.encode()) > 255 or not name.isprintable():
        raise faulty(f"{quoted(name)} cannot be the name of a network namespace", "`ip netns list` shows the names")
    return name


def file_path(value: object) -> str:
    """A file by its whole path: a service has no folder that its paths could start from."""
    text = words(value, "the path of a file")
    if not text.startswith("/") or "\0" in text:
        raise faulty(f"{quoted(text)} is not the whole path of a file", "begin with /, as in /etc/flowfast/tls.pem")
    return text


def address(value: object) -> IPv4Address | IPv6Address:
    """An IPv4 or IPv6 address without prefix length or zone."""
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    text = words(value, "an IPv4 or IPv6 address", loose=True)
    try:
        parsed = ip_address(text)
    except ValueError:
        remedy = "leave out the prefix length" if "/" in text else "such as 192.0.2.2 or 2001:db8::2"
        raise faulty(f"{quoted(text)} is not an IPv4 or IPv6 address", remedy) from None
    if isinstance(parsed, IPv6Address) and parsed.scope_id:
        raise faulty(f"{quoted(text)} names a zone, and an SA has none", f"write {str(parsed).partition('%')[0]}")
    return parsed


def prefix(value: object) -> IPv4Network | IPv6Network:
    """An IPv4 or IPv6 prefix, no bits set behind its length. A bare address is the prefix of this one address."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    text = words(value, "a prefix", loose=True)
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        proper = ip_network(text, strict=False)
    except ValueError:
        raise faulty(f"{quoted(text)} is not a prefix", "such as 10.1.0.0/16 or fd00:1::/64") from None
    raise faulty(
        f"{quoted(text)} has bits set behind its prefix length",
        f"write {proper}, or one address as {text.split('/')[0]}",
    )


class Endpoint(NamedTuple):
    """An address and a TCP port to listen on."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


def endpoint(value: object) -> Endpoint:
    """ADDRESS:PORT, an IPv6 address in brackets."""
    if isinstance(value, Endpoint):
        return value
    expected = "an address and port"
    text = words(value, expected, loose=True)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or not 1 <= int(port) <= 65535:
        raise faulty(
            f"{quoted(text)} is not {expected}", 'the port is a number from 1 to 65535, as in "127.0.0.1:9833"'
        )
    if host in ("", "*"):
        raise faulty(f"{quoted(text)} names no address", f'all of them are "0.0.0.0:{port}" or "[::]:{port}"')
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        parsed = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise faulty(f"{quoted(host)} is not an address", "names are not looked up: write 127.0.0.1 or [::1]") from None
    if (parsed.version == 6) is not bracketed:
        remedy = f'write "[{parsed}]:{port}"' if parsed.version == 6 else f'write "{parsed}:{port}"'
        raise faulty(f"{quoted(text)} is not {expected}", remedy)
    if isinstance(parsed, IPv6Address) and parsed.scope_id:
        raise faulty(f"{quoted(text)} names a zone", "listen on an address that needs none")
    return Endpoint(parsed, int(port))


def choice(kind: type[_Choice], expected: str) -> BeforeValidator:
    """One of the words of an enumeration, also where YAML would read the word (`off`) as a boolean."""
    known = [str(member) for member in kind]

    def read(value: object) -> _Choice:
        text = words(value, expected, loose=True)
        if text not in known:
            raise faulty(f"{quoted(text)} is not {expected}", f"one of {', '.join(known)}")
        return kind(text)

    return BeforeValidator(read)


def items(value: object, what: str, most: int | None = None, *, hint: str = "", empty: bool = False) -> tuple[Any, ...]:
    """The items of a list, at most `most` of them (`hint`: else), and at least one unless it may be `empty`."""
    if not isinstance(value, list | tuple):
        one = scalar(value)
        remedy = f"write [{one.text}]" if one is not None and one.text and len(one.text) < 40 else ""
        raise faulty(f"expected a list of {what}, found {found(value)}", remedy)
    if not value and not empty:
        raise faulty(f"expected a list of {what}, found an empty list")
    if most is not None and len(value) > most:
        raise faulty(f"{len(value)} {what}, at most {most} are read", hint)
    return tuple(value)


def listed(what: str, most: int | None = None, *, hint: str = "", empty: bool = False) -> BeforeValidator:
    """A list, read as items() does."""
    return BeforeValidator(lambda value: items(value, what, most, hint=hint, empty=empty))


def _distinct(given: tuple[_Item, ...]) -> tuple[_Item, ...]:
    first: dict[_Item, int] = {}
    faults = []
    for index, item in enumerate(given):
        if item in first:
            faults.append(Fault(f"{item} is in the list already", "keep one of them", (index,)))
        first.setdefault(item, index)
    if faults:
        raise Faulty(*faults)
    return given


def _text(**schema: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **schema})


DISTINCT = AfterValidator(_distinct)
DEVICE_TEXT: JsonDict = {"type": "string", "pattern": r'^[^\s/:"\\]+$'}

Truth = Annotated[bool, PlainValidator(truth), WithJsonSchema({"type": "boolean"})]
DeviceName = Annotated[str, PlainValidator(device_name), WithJsonSchema({**DEVICE_TEXT, "maxLength": 15})]
TunnelName = Annotated[str, PlainValidator(tunnel_name), _text(pattern=f"^{_NAME.pattern}$")]
NetnsName = Annotated[str, PlainValidator(netns_name), _text(pattern="^[^/]+$")]
FilePath = Annotated[str, PlainValidator(file_path), _text(pattern="^/")]
Address = Annotated[IPv4Address | IPv6Address, PlainValidator(address), _text()]
Prefix = Annotated[IPv4Network | IPv6Network, PlainValidator(prefix), _text()]
Listen = Annotated[Endpoint, PlainValidator(endpoint), PlainSerializer(Endpoint.__str__), _text(pattern="^.+:[0-9]+$")]
