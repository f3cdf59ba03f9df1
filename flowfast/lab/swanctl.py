"""What strongSwan reads and prints: swanctl.conf from dataclasses, `swanctl --raw` to dictionaries. No I/O."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flowfast.lab.netns import LabError

Value = str | bool | int | tuple[str, ...]
Section = Mapping[str, "Value | Section | None"]


@dataclass(frozen=True, slots=True)
class Child:
    """One CHILD_SA configuration: what it protects, from this end's point of view (swanctl.conf(5)).

    `rekey_time` in seconds, 0 for never. `per_cpu_sas` wants strongSwan 6.0.2, Linux 6.13 and `start_action` "trap":
    the kernel asks for the SA of a CPU when a packet first needs it, and drops packets until it is there.
    """

    name: str
    local_ts: tuple[str, ...]
    remote_ts: tuple[str, ...]
    proposals: tuple[str, ...] = ("aes128gcm16-esn",)
    mode: Literal["tunnel", "transport", "beet", "iptfs"] = "tunnel"
    if_id: int | None = None
    reqid: int | None = None
    start_action: Literal["none", "trap", "start"] = "none"
    rekey_time: int = 3600
    replay_window: int = 128
    hw_offload: Literal["no", "crypto", "packet", "auto"] = "no"
    per_cpu_sas: Literal["no", "yes", "encap"] = "no"

    def section(self) -> Section:
        """As a section of swanctl.conf; options that older versions lack only where they are wanted."""
        return {
            "local_ts": self.local_ts,
            "remote_ts": self.remote_ts,
            "esp_proposals": self.proposals,
            "mode": self.mode,
            "if_id_in": self.if_id,
            "if_id_out": self.if_id,
            "reqid": self.reqid,
            "start_action": self.start_action,
            "rekey_time": f"{self.rekey_time}s",
            "replay_window": self.replay_window,
            "hw_offload": None if self.hw_offload == "no" else self.hw_offload,
            "per_cpu_sas": None if self.per_cpu_sas == "no" else self.per_cpu_sas,
        }


@dataclass(frozen=True, slots=True)
class Connection:
    """One IKE connection between two addresses, authenticated by a shared key; the identities are the addresses."""

    name: str
    local: str
    remote: str
    children: tuple[Child, ...]
    proposals: tuple[str, ...] = ("aes128gcm16-prfsha256-x25519", "aes128gcm16-prfsha256-ecp256")
    encap: bool = False

    def section(self) -> Section:
        """As a section of swanctl.conf."""
        return {
            "version": 2,
            "local_addrs": self.local,
            "remote_addrs": self.remote,
            "proposals": self.proposals,
            "encap": self.encap,
            "mobike": False,
            "rekey_time": "0s",
            "local": {"auth": "psk", "id": self.local},
            "remote": {"auth": "psk", "id": self.remote},
            "children": {child.name: child.section() for child in self.children},
        }


def render(section: Section, indent: int = 0) -> str:
    """A tree of settings in strongswan.conf's syntax; what is None is left out."""
    lines = []
    pad = "    " * indent
    for key, value in section.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            lines.append(f"{pad}{key} {{\n{render(value, indent + 1)}{pad}}}\n")
        else:
            lines.append(f"{pad}{key} = {_text(value)}\n")
    return "".join(lines)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    # An address with colons, and anything else with what the syntax uses, is quoted.
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return text if re.fullmatch(r"[\w.,/+%-]+", text) else f'"{text}"'


def swanctl_conf(connections: tuple[Connection, ...], secret: str) -> str:
    """The whole of swanctl.conf for these connections, with one shared key for all of them."""
    identities = sorted({end for connection in connections for end in (connection.local, connection.remote)})
    ids: Section = {f"id-{number}": identity for number, identity in enumerate(identities)}
    return render(
        {
            "connections": {connection.name: connection.section() for connection in connections},
            "secrets": {"ike-lab": {**ids, "secret": secret}},
        }
    )


_TOKEN = re.compile(r"[{}\[\]]|[^\s{}\[\]=]+=?")


def parse_raw(text: str) -> list[tuple[str, dict[str, Any]]]:
    """What `swanctl --raw` printed, as (name of the message, its content): sections and lists nest, values are text.

    "list-sa event {gw {state=ESTABLISHED local-ts=[10.1.0.0/16]}}" becomes
    ("list-sa", {"gw": {"state": "ESTABLISHED", "local-ts": ["10.1.0.0/16"]}}).
    """
    tokens = iter(_TOKEN.findall(text))
    messages = []
    try:
        for name in tokens:
            next(tokens)  # "event" or "reply"
            if next(tokens) != "{":
                raise LabError(f"swanctl printed what is no message: {text[:200]}")
            messages.append((name, _section(tokens)))
    except StopIteration:
        raise LabError(f"swanctl printed an incomplete message: {text[-200:]}") from None
    return messages


def _section(tokens: Iterator[str]) -> dict[str, Any]:
    section: dict[str, Any] = {}
    key = ""
    while (word := next(tokens)) != "}":
        if word == "{":
            section[key] = _section(tokens)
        elif word == "[":
            section[key] = _list(tokens)
        elif word.endswith("="):
            key = word[:-1]
            section[key] = ""
        elif key in section and section[key] == "":
            section[key] = word
        else:
            key = word
    return section


def _list(tokens: Iterator[str]) -> list[str]:
    items = []
    while (word := next(tokens)) != "]":
        items.append(word)
    return items
