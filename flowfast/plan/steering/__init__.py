"""An SA for each CPU, a CPU for each SA: which packet goes where, and by what. Pure."""

from flowfast.plan.steering.plan import Plan, steer

__all__ = ["Plan", "steer"]
