"""Which events of XFRM need a round: those that change a plan. A rekey is none."""

from dataclasses import replace

import pytest

from flowfast.bench import CONFIG, hub, policies, sa_pair
from flowfast.kernel.xfrm import Event, PoliciesFlushed, PolicyAdded, PolicyDeleted, PolicyUpdated, SaAdded, SaDeleted
from flowfast.kernel.xfrm import SaUpdated as Updated
from flowfast.model.sa import SA, Counters, Mark
from flowfast.news import Known
from flowfast.plan.planner import plan

STATE = hub(3)
OUT, _, FORWARD = policies(1)
INBOUND, OUTBOUND = sa_pair(1, generation=1)
UNMARKED = INBOUND._replace(output_mark=None)


def known(*more: SA) -> Known:
    """What a round knows of the hub, with further SAs."""
    sas = (*STATE.sas, *more)
    paths = plan(replace(STATE, sas=sas), CONFIG).paths
    return Known(STATE.policies, [path.tunnel for path in paths])


@pytest.mark.parametrize(
    "event",
    [
        SaAdded(INBOUND),
        Updated(INBOUND),
        SaAdded(OUTBOUND),
        SaDeleted(sa_pair(1)[0]),
        SaAdded(UNMARKED._replace(algorithm=None)),  # an SPI that is only allocated
        SaAdded(INBOUND._replace(reqid=99)),  # of a tunnel without policies
        PolicyUpdated(OUT._replace(policy_index=8, counters=Counters(5, 5, 5, None))),
    ],
)
def test_a_rekey_is_no_news(event: Event) -> None:
    assert not known().changed_by(event)


@pytest.mark.parametrize(
    "event",
    [
        SaAdded(UNMARKED),
        Updated(UNMARKED),
        SaAdded(INBOUND._replace(output_mark=Mark(77, 0xFFFFFFFF))),
        PolicyAdded(policies(9)[0]),
        PolicyUpdated(OUT._replace(priority=OUT.priority + 1)),
        PolicyUpdated(FORWARD._replace(templates=())),
        PolicyDeleted(OUT),
        PoliciesFlushed(0),
    ],
)
def test_what_a_plan_is_made_of_is_news(event: Event) -> None:
    assert known().changed_by(event)


def test_the_end_of_an_sa_whose_peer_had_several_marks_is_news() -> None:
    assert known(UNMARKED).changed_by(SaDeleted(UNMARKED))


def test_sas_of_cpus_are_news_only_to_who_steers_by_them() -> None:
    per_cpu = OUTBOUND._replace(pcpu=1)
    for steering in (True, False):
        judge = Known(STATE.policies, (), steering=steering)
        assert judge.changed_by(SaAdded(per_cpu)) == judge.changed_by(SaDeleted(per_cpu)) == steering
