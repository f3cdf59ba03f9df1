"""Names and globs against the devices that are there."""

import pytest

from flowfast.config.devices import check_devices, matching
from flowfast.config.load import parse

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
        'site.yaml:1:30: devices.wan: the device "eth1" is matched by devices.lan too (make one of the globs narrower)'
    ]


@pytest.mark.parametrize(
    ("patterns", "meant"),
    [(["eth0"], ("eth0",)), (["eth*"], ("eth0", "eth1")), (["e*", "wan0", "gone"], ("eth0", "eth1", "wan0")), ([], ())],
)
def test_matching(patterns: list[str], meant: tuple[str, ...]) -> None:
    assert matching(patterns, EXISTING) == meant
