"""How large an inner packet may be before the tunnel refuses it: what the flowtable compares packets with."""

from typing import NamedTuple

from flowfast.model.sa import SA, Mode

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
