"""Names and globs against the devices that are there."""

import pytest

from flowfast.config.devices import check_devices, matching
from flowfast.config.load import parse
from flowfast.config.schema import Config
from flowfast.config.selectors import Traits

EXISTING = ["eth0", "eth1", "lo", "wan0"]


def said(devices: str, existing: list[str]) -> list[str]:
    return [str(problem) for problem in check_devices(parse(f"devices: {devices}\n", "site.yaml"), existing)]


def test_a_missing_device_is_placed_and_the_nearest_name_suggested() -> None:
    text = "version: 1\ndevices:\n  lan: [eth9]\n  wan: [wan0]\n"
    assert [str(problem) for problem in check_devices(parse(text, "site.yaml"), ["eth0", "wan0"])] == [
        'site.yaml:3:9: devices.lan: no device named "eth9" (did you mean "eth0"?)'
    ]


def test_without_a_near_name_all_are_listed() -> None:
    assert said("{lan: [xyz], wan: [wan0]}", EXISTING) == [
        'site.yaml:1:17: devices.lan: no device named "xyz" (there are: eth0, eth1, lo, wan0)'
    ]


def test_a_glob_may_match_nothing_yet() -> None:
    assert said('{lan: ["ens*"], wan: [wan0]}', EXISTING) == []


def test_a_device_that_two_globs_put_on_both_sides() -> None:
    assert said('{lan: ["e*"], wan: ["*1", wan0]}', EXISTING) == [
        'site.yaml:1:30: devices.wan: the device "eth1" is matched by devices.lan too (make one of the two narrower)'
    ]


def test_a_driver_that_puts_a_device_on_both_sides() -> None:
    loaded = parse("devices: {lan: [{driver: virtio_net}], wan: [wan0]}\n", "site.yaml")
    assert check_devices(loaded, EXISTING, drivers={"wan0": "veth"}) == []
    assert [str(problem) for problem in check_devices(loaded, EXISTING, drivers={"wan0": "virtio_net"})] == [
        'site.yaml:1:46: devices.wan: the device "wan0" is matched by devices.lan too (make one of the two narrower)'
    ]


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ({"driver": "virtio_net"}, ("eth0",)),
        ({"driver": "mlx5*"}, ("eth1", "wan0")),
        ({"feature": "esp-hw-offload"}, ("eth1",)),
        ({"driver": "mlx5*", "feature": "esp-hw-offload"}, ("eth1",)),
        ({"driver": "virtio_net", "feature": "esp-hw-offload"}, ()),
        ({"driver": "*", "name": "e*"}, ("eth0", "eth1")),
    ],
)
def test_matching_by_driver_and_feature(wanted: dict[str, str], meant: tuple[str, ...]) -> None:
    config = Config.model_validate({"devices": {"lan": [wanted], "wan": ["w"]}})
    drivers = {"eth0": "virtio_net", "eth1": "mlx5_core", "wan0": "mlx5_core", "lo": None}
    features = {"eth1": {"esp-hw-offload", "tx-esp-segmentation"}, "wan0": {"rx-gro"}}
    assert matching(config.devices.lan, EXISTING, drivers=drivers, features=features) == meant


def test_without_knowledge_of_drivers_nothing_has_one() -> None:
    assert matching([Traits(driver="*?*"), Traits(feature="rx-gro"), "lo"], EXISTING) == ("lo",)


@pytest.mark.parametrize(
    ("patterns", "meant"),
    [(["eth0"], ("eth0",)), (["eth*"], ("eth0", "eth1")), (["e*", "wan0", "gone"], ("eth0", "eth1", "wan0")), ([], ())],
)
def test_matching(patterns: list[str], meant: tuple[str, ...]) -> None:
    assert matching(patterns, EXISTING) == meant
