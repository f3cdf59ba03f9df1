"""The NIC's own steering, asked and set through ethtool(8): indirection tables, hash fields, ntuple rules.

The program, because what it says to drivers is right for all of them; called only for devices with several queues.
"""

import ctypes
import fcntl
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping

from flowfast.model.errors import KernelError
from flowfast.model.knob import Knob
from flowfast.model.machine import Rss

_ROW = re.compile(r"^\s*\d+:\s+((?:\d+\s*)+)$", re.MULTILINE)
_KEY = re.compile(r"^((?:[0-9a-f]{2}:)+[0-9a-f]{2})$", re.MULTILINE)
_FIELDS = {
    "L2DA": ("mac", "m"),
    "VLAN tag": ("vlan", "v"),
    "L3 proto": ("proto", "t"),
    "IP SA": ("src", "s"),
    "IP DA": ("dst", "d"),
    "L4 bytes 0 & 1": ("sport", "f"),
    "L4 bytes 2 & 3": ("dport", "n"),
    "GTP TEID": ("teid", "e"),
    "IPv6 Flow Label": ("label", "l"),
}
"""What ethtool prints of a hash: our word for it, and the letter by which ethtool takes it."""
HASH = "rx-flow-hash"
_TYPES = {
    "IPSEC ESP over IPv4": "esp4",
    "IPSEC ESP over IPv6": "esp6",
    "UDP over IPv4": "udp4",
    "UDP over IPv6": "udp6",
}
KINDS = ("esp4", "esp6", "udp4", "udp6")
_RULE = re.compile(r"^Filter: (\d+)$((?:\n[ \t]+.+)*)", re.MULTILINE)
_TIMEOUT = 10
_SIOCETHTOOL, _GRXFHINDIR, _SRXFHINDIR = 0x8946, 0x38, 0x39
_SIZE = struct.Struct("=II")  # command, size


def available() -> bool:
    """Whether the program is installed."""
    return shutil.which("ethtool") is not None


def _ask(*arguments: str) -> str | None:
    """What ethtool prints; None where it refuses, or is not there."""
    try:
        done = subprocess.run(["ethtool", *arguments], capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _tell(what: str, *arguments: str) -> None:
    """Has ethtool change something. Raises KernelError with its own word."""
    try:
        done = subprocess.run(["ethtool", *arguments], capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(f"{what}: {error}", 2) from error
    if done.returncode != 0:
        words = " ".join(done.stderr.split()) or f"ethtool ended with {done.returncode}"
        raise KernelError(f"{what}: {words}", 22)


def rss(device: str) -> Rss | None:
    """The device's RSS; None where it has none."""
    shown = _ask("-x", device)
    if shown is None:
        return None
    table, key = parse_rss(shown)
    fields = {kind: parse_fields(said) for kind in KINDS if (said := _ask("-n", device, HASH, kind))}
    return Rss(table, key, fields)


def parse_rss(shown: str) -> tuple[tuple[int, ...], bytes | None]:
    """Indirection table and key from `ethtool -x`."""
    table = tuple(int(queue) for row in _ROW.findall(shown) for queue in row.split())
    key = _KEY.search(shown)
    return table, bytes.fromhex(key[1].replace(":", "")) if key else None


def parse_fields(shown: str) -> frozenset[str]:
    """What is hashed, from `ethtool -n DEVICE rx-flow-hash KIND`."""
    found = {name for words, (name, _) in _FIELDS.items() if words in shown}
    # Drivers that hash the SPI say so in the words for ports: it lies where they would be.
    if "ESP" in shown.splitlines()[0] and "sport" in found:
        found.add("spi")
    return frozenset(found)


def rules(device: str) -> Mapping[int, str] | None:
    """ntuple rules by location, as flowfast would write them ("?" of another kind); None where it takes none."""
    features = _ask("-k", device)
    if features is None or not re.search(r"^ntuple-filters: on", features, re.MULTILINE):
        return None
    shown = _ask("-n", device)
    return None if shown is None else dict(parse_rules(shown))


def parse_rules(shown: str) -> Iterator[tuple[int, str]]:
    """(location, rule) of each filter in `ethtool -n`."""
    for location, body in _RULE.findall(shown):
        yield int(location), _words(body)


def _words(body: str) -> str:
    said = dict(line.strip().split(": ", 1) for line in body.strip().splitlines() if ": " in line)
    name, queue = _TYPES.get(said.get("Rule Type", "")), said.get("Action", "").removeprefix("Direct to queue ")
    if name is None or not queue.isdigit():
        return "?"
    destination = said.get("Dest IP addr", "").split(" mask")[0]
    if name.startswith("esp"):
        spi = int(said["SPI"].split()[0], 0) & 0xFFFFFFFF  # it is printed as a signed decimal number
        return f"{name} dst-ip {destination} spi {spi:#x} action {queue}"
    ports = (said.get(f"{end} port", "0").split()[0] for end in ("Src", "Dest"))
    return "{} dst-ip {} src-port {} dst-port {} action {}".format(name, destination, *ports, queue)


def parse_letters(shown: str) -> str:
    """The same in ethtool's letters: "sdfn"."""
    return "".join(letter for words, (_, letter) in _FIELDS.items() if words in shown)


class RssKnobs:
    """The knobs of RSS: `indirection`, and `rx-flow-hash KIND`, what is hashed of such packets."""

    def read(self, knob: Knob) -> str | None:
        """Queues in the order of the slots, or ethtool's letters; None where the device has none."""
        if knob.name.startswith(HASH):
            return parse_letters(_ask("-n", knob.object, *knob.name.split()) or "") or None
        try:
            request = _indirection(knob.object, _GRXFHINDIR, [])
            size = _SIZE.unpack_from(request)[1]
            request = _indirection(knob.object, _GRXFHINDIR, [0] * size)
        except OSError:
            return None
        return ",".join(str(queue) for queue in struct.unpack_from(f"={size}I", request, _SIZE.size)) or None

    def write(self, knob: Knob, value: str) -> None:
        """Sets what is hashed, or all slots: those by ioctl, as ethtool(8) sets shares and weights, and no order."""
        if knob.name.startswith(HASH):
            _tell(str(knob), "-N", knob.object, *knob.name.split(), value)
        else:
            _indirection(knob.object, _SRXFHINDIR, [int(queue) for queue in value.split(",")])


def _indirection(device: str, command: int, queues: list[int]) -> bytearray:
    """SIOCETHTOOL with a struct ethtool_rxfh_indir (linux/ethtool.h); raises OSError."""
    request = bytearray(_SIZE.pack(command, len(queues)) + struct.pack(f"={len(queues)}I", *queues))
    where = ctypes.addressof(ctypes.c_char.from_buffer(request))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asker:
        fcntl.ioctl(
            asker, _SIOCETHTOOL, device.encode()[:15].ljust(16, b"\0") + where.to_bytes(8, sys.byteorder) + bytes(16)
        )
    return request


class Rule:
    """The knobs that are ntuple rules, named by their location."""

    def read(self, knob: Knob) -> str | None:
        """The rule there, "none" where a rule could be; None where the device takes none."""
        held = rules(knob.object)
        return None if held is None else held.get(int(knob.name), "none")

    def write(self, knob: Knob, value: str) -> None:
        """Makes or removes the rule."""
        if value == "none":
            _tell(str(knob), "-N", knob.object, "delete", knob.name)
        else:
            _tell(str(knob), "-N", knob.object, "flow-type", *value.split(), "loc", knob.name)
