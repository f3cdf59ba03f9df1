"""What the planner makes of the table as it is: the lab's four kernels, virtio-net, policies."""

from dataclasses import replace

import pytest

from flowfast.model.bulk import Arrival, BulkState, DeviceKnobs, Stage
from flowfast.model.desired import Desired
from flowfast.model.state import RouterState
from flowfast.plan.planner import plan
from flowfast.qualified import cells, kernels
from tests.unit.plan.router import LAN, WAN, config, policies, router

KERNELS = ("6.1.0-50", "6.12.117+deb13", "7.2.12+deb14", "7.3.4+deb13")
KNOBS = {
    "rx-gro": "on",
    "rx-gro-list": "off",
    "rx-udp-gro-forwarding": "off",
    "gro_flush_timeout": "0",
    "napi_defer_hard_irqs": "0",
    "shield": "on",
}
FINISHED = Arrival(100, 0)


def virtio(kernel: str, *, esp_offload: bool, unfinished: int = 0, **knobs: str) -> RouterState:
    """A router with the shield on its LAN, at which packets were seen to arrive."""
    held = DeviceKnobs(KNOBS | {name.replace("_", "-"): value for name, value in knobs.items()})
    bulk = BulkState(
        f"{kernel}-amd64",
        esp_offload,
        {"lan0": held, "wan0": held},
        {"lan0": replace(FINISHED, unfinished=unfinished), "wan0": FINISHED},
        cells(kernel),
        kernels(),
    )
    links = tuple(replace(link, driver="virtio_net") for link in (LAN, WAN))
    return replace(router(policies(), links=links), bulk=bulk)


def best(desired: Desired) -> dict[str, Stage]:
    return {device: next(iter(stages)) for device, stages in desired.stages.items()}


AUTO = config("bulk: {profile: auto}")


@pytest.mark.parametrize("kernel", KERNELS)
def test_auto_may_merge_udp_on_both_sides_of_every_kernel_of_the_lab(kernel: str) -> None:
    with_offload = plan(virtio(kernel, esp_offload=True), AUTO)
    assert best(with_offload) == {"lan0": Stage.UDP, "wan0": Stage.LIST}
    assert best(plan(virtio(kernel, esp_offload=False), AUTO)) == {"lan0": Stage.LIST, "wan0": Stage.LIST}


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_fastest_stage_is_for_a_shield_that_nobody_takes_off_by_a_slip(kernel: str) -> None:
    held = virtio(kernel, esp_offload=True, shield_held="on")
    assert best(plan(held, AUTO)) == {"lan0": Stage.LIST, "wan0": Stage.LIST}
    gone = virtio(kernel, esp_offload=True, shield_held="on", shield="off")
    assert Stage.LIST not in plan(gone, AUTO).stages["lan0"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_merges_udp_on_the_lan_without_the_shield(kernel: str) -> None:
    desired = plan(virtio(kernel, esp_offload=True), config("bulk: {profile: auto, shield: false}"))
    assert set(desired.stages["lan0"]) == {Stage.GRO, Stage.OFF}


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_kills_the_kernel_is_condemned_when_the_shield_is_gone(kernel: str) -> None:
    on = virtio(kernel, esp_offload=True, rx_gro_list="on")
    assert not [each for each in plan(on, AUTO).reasons if each.code == "BULK_CONDEMNED" and each.object == "lan0"]
    gone = virtio(kernel, esp_offload=True, rx_gro_list="on", shield="off")
    told = [each for each in plan(gone, AUTO).reasons if each.code == "BULK_CONDEMNED" and each.object == "lan0"]
    assert "kills the kernel" in told[0].sentence


@pytest.mark.parametrize("kernel", KERNELS)
def test_with_unfinished_checksums_nothing_is_qualified_on_virtio(kernel: str) -> None:
    assert best(plan(virtio(kernel, esp_offload=True, unfinished=1), AUTO))["lan0"] is Stage.OFF
