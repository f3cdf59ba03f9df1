"""The tunnel's MTU by the arithmetic of the kernel; tests/guest/test_explain.py holds it against one."""

import pytest

from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.sa import SA, Encap, Mode
from flowfast.plan.mtu import tunnel_mtu

GCM = make_sa()
CBC = GCM._replace(algorithm="cbc(aes)", auth_algorithm="hmac(sha256)", icv_bits=128)
SIX = make_sa("2001:db8::1", "2001:db8::2")


@pytest.mark.parametrize(
    ("sa", "underlay", "mtu"),
    [
        (GCM, 1500, 1446),
        (GCM, 1499, 1442),
        (GCM, 9000, 8946),
        (GCM._replace(encap=Encap(2, 4500, 4500)), 1500, 1438),
        (SIX, 1500, 1426),
        (CBC, 1500, 1438),
        (GCM._replace(algorithm="rfc7539esp(chacha20,poly1305)"), 1500, 1446),
        (GCM._replace(mode=Mode.TRANSPORT), 1500, None),
        (GCM._replace(algorithm="rfc9999(new(cipher))"), 1500, None),
    ],
)
def test_largest_inner_packet(sa: SA, underlay: int, mtu: int | None) -> None:
    assert tunnel_mtu(sa, underlay) == mtu
