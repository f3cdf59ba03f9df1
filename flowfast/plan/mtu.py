"""How large an inner packet may be before the tunnel refuses it: what the flowtable compares packets with."""

from collections.abc import Iterable
from ipaddress import ip_interface
from typing import NamedTuple

from flowfast.model.sa import SA, Mode
from flowfast.model.state import RouterState
from flowfast.model.tunnel import Tunnel

_IP_HEADER = {2: 20, 10: 40}
_ESP_HEADER = 8  # SPI and sequence number
_UDP_HEADER = 8


class _Cipher(NamedTuple):
    iv: int
    block: int


_CIPHERS = {
    "rfc4106(gcm(aes))": _Cipher(8, 1),
    "rfc4543(gcm(aes))": _Cipher(8, 1),
    "rfc4309(ccm(aes))": _Cipher(8, 1),
    "rfc7539esp(chacha20,poly1305)": _Cipher(8, 1),
    "rfc3686(ctr(aes))": _Cipher(8, 1),
    "cbc(aes)": _Cipher(16, 16),
    "cbc(camellia)": _Cipher(16, 16),
    "cbc(des3_ede)": _Cipher(8, 8),
    "ecb(cipher_null)": _Cipher(0, 1),
}


def tunnel_mtu(sa: SA, underlay: int) -> int | None:
    """Bytes of the largest inner packet that the SA carries whole, where outer packets may have `underlay` bytes.

    None for a mode other than tunnel, or a cipher that is not known here. Source: __xfrm_state_mtu()
    (net/xfrm/xfrm_state.c), esp_init_aead() and esp_init_authenc() (net/ipv4/esp4.c).
    """
    cipher = _CIPHERS.get(sa.algorithm or "")
    if cipher is None or sa.icv_bits is None or sa.mode != Mode.TUNNEL:
        return None
    header = _IP_HEADER[sa.family] + _ESP_HEADER + cipher.iv + (_UDP_HEADER if sa.encap is not None else 0)
    block = max(4, cipher.block)  # ESP pads to four bytes at least (RFC 4303 section 2.4)
    return ((underlay - header - sa.icv_bits // 8) & -block) - 2  # pad length and next header


SPARE = 100
"""Bytes that ESP in tunnel mode takes at most, rounded up: of a cipher that is not known here."""


def rooms(state: RouterState, tunnels: Iterable[Tunnel]) -> dict[str, int]:
    """Tunnel -> bytes of the largest inner packet that its youngest SA carries whole, behind an interface no more than
    that has; of tunnels that are up. The way to the peer is taken to leave by the device that has their own address."""
    by_address = {str(ip_interface(address).ip): link.mtu for link in state.links for address in link.addresses}
    by_name = {link.name: link.mtu for link in state.links}
    found = {}
    for tunnel in tunnels:
        underlay = by_address.get(tunnel.key.local)
        if not tunnel.outbound or underlay is None or tunnel.key.netns is not None:
            continue
        youngest = max(tunnel.outbound, key=lambda sa: sa.counters.add_time)
        if youngest.mode == Mode.TUNNEL:
            room = tunnel_mtu(youngest, underlay) or underlay - SPARE
            found[tunnel.name] = min(room, by_name.get(tunnel.interface or "", room))
    return found
