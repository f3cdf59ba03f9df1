"""What doctor checks beside the kernel's features: one file for each area, each a pure function of an Examination."""

from flowfast.plan.checks.base import Check, Examination
from flowfast.plan.checks.conntrack import conntrack
from flowfast.plan.checks.devices import devices
from flowfast.plan.checks.ike import ike
from flowfast.plan.checks.modules import modules
from flowfast.plan.checks.sas import sas
from flowfast.plan.checks.sysctls import sysctls, wanted_sysctls

__all__ = ["Check", "Examination", "examine", "wanted_sysctls"]

_AREAS = (modules, sysctls, conntrack, devices, sas, ike)


def examine(seen: Examination) -> list[Check]:
    """Every check, in the order of their areas; one without a Reason found what it should."""
    return [check for area in _AREAS for check in area(seen)]
