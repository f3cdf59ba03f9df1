"""What ethtool(8) makes of our words: no emulated NIC has ntuple rules, but its parser comes before the driver."""

import pytest

from flowfast.kernel.knobs import RealKnobs
from flowfast.kernel.xfrm.builders import make_sa
from flowfast.model.errors import KernelError
from flowfast.model.knob import Knob, KnobKind
from flowfast.model.sa import Encap
from flowfast.plan.steering.devices import rule

pytestmark = pytest.mark.guest(images=["debian14"], nics=3, cpus=4)

V4 = make_sa("192.0.2.2", "192.0.2.1", 0xC0FFEE01)
V6 = make_sa("2001:db8::2", "2001:db8::1", 0xC0FFEE01)
ENCAP = Encap(2, 4501, 4500)


def refusal(value: str) -> str:
    with pytest.raises(KernelError) as refused:
        RealKnobs().turn(Knob(KnobKind.NTUPLE, "lo", "1"), value)
    return str(refused.value)


@pytest.mark.parametrize("sa", [V4, V6, V4._replace(encap=ENCAP), V6._replace(encap=ENCAP)])
def test_a_rule_is_understood_and_then_refused_by_the_device(sa: object) -> None:
    said = refusal(rule(sa, 2))  # type: ignore[arg-type]
    assert "not supported" in said, said


def test_another_word_is_not_understood() -> None:
    assert "not supported" not in refusal("esp4 spy 0x1 action 2")


def test_what_a_device_has_not_is_not_there() -> None:
    knobs = [Knob(KnobKind.NTUPLE, "lo", "1"), Knob(KnobKind.RSS, "lo", "indirection")]
    assert RealKnobs().read(knobs) == {}
