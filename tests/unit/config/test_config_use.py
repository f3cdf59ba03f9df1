"""Configs made of templates: what wins, what is joined, what does not fit, and where each value is said to be from."""

from pathlib import Path

import pytest

from flowfast.config import library
from flowfast.config.load import LoadedConfig, load
from flowfast.config.problem import ConfigError
from flowfast.config.schema import Accounting, Mode
from flowfast.config.traffic import Ports

A = """template: a
description: d
parameters:
  lan: {type: devices, description: Towards the hosts., default: [lan0]}
  mode: {type: choice, description: d, choices: [guarded, outbound-only, off], default: guarded}
config:
  devices: {lan: $lan, wan: [wan0]}
  offload: {mode: $mode, ports: [443, 0x50]}
  exclude: {tunnels: [a]}
  tunnels: {berlin: {local: [10.1.0.0/16], remote: [10.2.0.0/16]}}
  notrack: yes
"""
B = """template: b
description: d
parameters:
  extra: {type: prefix, description: An excluded one., required: true}
config:
  devices: {lan: [lan9, lan0]}
  offload: {mode: guarded, ports: [80, 22]}
  exclude: {tunnels: [b, a], addresses: [$extra]}
  tunnels: {berlin: {if_id: 7, offload: false}, paris: {if_id: 8}}
  notrack: true
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.yaml").write_text(A)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yaml").write_text(B)
    return tmp_path


def site(folder: Path, text: str) -> LoadedConfig:
    (folder / "site.yaml").write_text(text)
    return load(folder / "site.yaml")


def lines(folder: Path, text: str) -> list[str]:
    """What is printed, without the folder's name."""
    with pytest.raises(ConfigError) as caught:
        site(folder, text)
    return str(caught.value).replace(f"{folder}/", "").split("\n")


BOTH = "use: [{template: ./a.yaml}, {template: sub/b.yaml, set: {extra: 10.9.0.0/16}}]\n"


def test_mappings_merge_lists_are_joined_and_equal_values_fit(folder: Path) -> None:
    config = site(folder, BOTH).config
    assert config.devices.lan == ("lan0", "lan9")
    assert config.devices.wan == ("wan0",)
    assert config.offload.ports == (Ports(22, 22), Ports(80, 80), Ports(443, 443))
    assert config.exclude.tunnels == ("a", "b")
    assert [str(each) for each in config.exclude.addresses] == ["10.9.0.0/16"]
    assert (config.offload.mode, config.notrack) == (Mode.GUARDED, True)
    assert list(config.tunnels) == ["berlin", "paris"]
    berlin = config.tunnels["berlin"]
    assert (str(berlin.remote[0]), berlin.if_id, berlin.offload) == ("10.2.0.0/16", 7, False)


def test_the_config_itself_comes_first_and_its_single_values_win(folder: Path) -> None:
    config = site(
        folder,
        BOTH
        + "devices: {lan: [lan5, lan9], wan: [wan5]}\n"
        + "offload: {mode: off, ports: }\n"
        + "tunnels: {rome: {if_id: 9}, berlin: {if_id: 70}}\n"
        + "notrack: false\naccounting: precise\n",
    ).config
    assert config.devices.lan == ("lan5", "lan9", "lan0")
    assert config.devices.wan == ("wan5", "wan0")
    assert (config.offload.mode, config.notrack, config.accounting) == (Mode.OFF, False, Accounting.PRECISE)
    assert config.offload.ports  # a key without a value is one left out
    assert list(config.tunnels) == ["rome", "berlin", "paris"]
    assert (config.tunnels["berlin"].if_id, config.tunnels["berlin"].offload) == (70, False)


def test_a_key_without_a_value_is_not_where_a_list_is_from(folder: Path) -> None:
    loaded = site(folder, BOTH + "offload: {ports: }\n")
    assert loaded.where(("offload", "ports")).endswith("/a.yaml:8:26")


def test_the_lines_of_a_file_stand_together(folder: Path) -> None:
    (folder / "a.yaml").write_text(A.replace("443,", "443, 70000,"))
    found = lines(folder, BOTH + "devices: {lan: [a/b]}\n" + "\n" * 8 + "loop: {debounce_ms: 99}\n")
    assert [line.partition(": ")[0] for line in found] == ["site.yaml:2:17", "site.yaml:11:21", "a.yaml:8:39"]


def test_the_config_remembers_what_it_is_made_of(folder: Path) -> None:
    uses = site(folder, "use: [{template: ./a.yaml, set: {lan: [x, {driver: y}], mode: off}}]\n").config.use
    assert [(use.template, use.set) for use in uses] == [("./a.yaml", {"lan": ("x", {"driver": "y"}), "mode": "off"})]


def test_a_template_may_be_used_twice(folder: Path) -> None:
    text = "use: [{template: ./a.yaml, set: {lan: [lan1]}}, {template: ./a.yaml, set: {lan: [lan2]}}]\n"
    assert site(folder, text).config.devices.lan == ("lan1", "lan2")


def test_nothing_used_is_nothing_changed(folder: Path) -> None:
    plain = "devices: {lan: [a], wan: [b]}\n"
    assert (
        site(folder, "use: []\n" + plain).config == site(folder, "use:\n" + plain).config == site(folder, plain).config
    )


def test_flowfasts_own_templates_by_name(folder: Path) -> None:
    config = site(
        folder,
        "use:\n"
        "  - {template: site-to-site-policy, set: {wan: [wan0], lan: [lan0]}}\n"
        "  - {template: plain-router, set: {after_packets: 10}}\n",
    ).config
    assert (config.offload.mode, config.offload.plain, config.offload.after_packets) == (Mode.GUARDED, True, 10)


def test_values_stand_in_the_file_that_they_were_written_in(folder: Path) -> None:
    loaded = site(folder, BOTH + "devices: {lan: [lan5]}\n")
    where = {path: loaded.where(path).replace(f"{folder}/", "") for path in PLACES}
    assert where == PLACES


PLACES: dict[tuple[str | int, ...], str] = {
    ("devices", "lan", 0): "site.yaml:2:17",
    ("devices", "lan", 1): "a.yaml:4:67",  # a default
    ("devices", "lan", 2): "sub/b.yaml:6:19",
    ("devices", "lan"): "site.yaml:2:11",
    ("devices", "wan", 0): "a.yaml:7:30",
    ("offload", "mode"): "a.yaml:5:89",
    ("exclude", "addresses", 0): "site.yaml:1:65",  # given under set
    ("tunnels", "berlin", "if_id"): "sub/b.yaml:9:29",
    ("tunnels", "paris"): "sub/b.yaml:9:49",
    ("loop", "debounce_ms"): "site.yaml:1:1",
}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("use: [{template: ./a.yaml, set: {mode: off}}, {template: sub/b.yaml, set: {extra: 10.0.0.0/8}}]",
         'sub/b.yaml:7:19: offload.mode: "guarded" here, but off at site.yaml:1:40, and both templates are used '
         "(say in the config itself what it should be)"),
        ("use: [{template: ./a.yaml, set: {lan: [wan0]}}]", "a.yaml:7:30: devices.wan[0]: wan0 is in devices.lan too, "
         "as wan0 (a device faces one side: remove it from one)"),
        ("use: [{template: ./a.yaml, set: {lan: lan1}}]", "site.yaml:1:39: use[0].set.lan: expected a list of device "
         "names, found text (write [lan1])"),
        ("use: [{template: ./a.yaml, set: {lan: [a/b]}}]", "site.yaml:1:40: use[0].set.lan[0]: \"a/b\" cannot be the "
         "name of a device: it has the character '/' in it"),
        ("use: [{template: ./a.yaml, set: {lan: [{drvier: x}]}}]",
         'site.yaml:1:41: use[0].set.lan[0].drvier: unknown key (did you mean "driver"?)'),
        ("use: [{template: ./a.yaml, set: {lna: [lan1]}}]",
         'site.yaml:1:34: use[0].set.lna: no parameter of the template "./a.yaml" (did you mean "lan"?)'),
        ("use: [{template: sub/b.yaml}]", 'site.yaml:1:7: use[0]: the template "sub/b.yaml" needs a value for extra '
         "(An excluded one.) (add it, as set: {extra: ...})"),
        ("use: [{template: sub/b.yaml, set: {extra: }}]", 'site.yaml:1:7: use[0]: the template "sub/b.yaml" needs a '
         "value for extra (An excluded one.) (add it, as set: {extra: ...})"),
        ("use: [{template: plain-ruoter}]", 'site.yaml:1:18: use[0].template: "plain-ruoter" is not the name of a '
         'template (did you mean "plain-router"?)'),
        ("use: [{template: ./c.yaml}]", 'site.yaml:1:18: use[0].template: "./c.yaml": no such file'),
        ("use: [{template: ./sub}]", 'site.yaml:1:18: use[0].template: "./sub": is a directory, not a file'),
        ("use: [{template: ./site.yaml}]", 'site.yaml:1:18: use[0].template: "./site.yaml" is a config, not a '
         "template (copy from it what you need)"),
        ("use: [{set: {}}]", 'site.yaml:1:7: use[0].template: missing (as template: "site-to-site-policy")'),
        ("use: [{template: no}]", "site.yaml:1:18: use[0].template: expected the name of a template or the path of "
         'one, found a boolean (YAML takes no for a boolean: write "no" if the word is meant)'),
        ("use: [plain-router]", "site.yaml:1:7: use[0]: expected a mapping with the keys template, set, found text"),
        ("use: plain-router", "site.yaml:1:6: use: expected a list of templates, found text (write [plain-router])"),
        ("use: [{template: ./a.yaml, set: [lan]}]",
         "site.yaml:1:28: use[0].set: expected a mapping of parameter names to their values, found a list"),
        (f"use: [{', '.join(['{template: ./a.yaml}'] * 17)}]", "site.yaml:1:1: use: 17 templates, at most 16 are read"),
        ("use: [{template: ./a.yaml, tepmlate: x}]",
         'site.yaml:1:28: use[0].tepmlate: unknown key (did you mean "template"?)'),
        ("use: [{template: ./a.yaml}]\nloop: {}\nloop: {}", "site.yaml:3:1: loop: given twice, first in line 2 "
         "(keep one of them)"),
        ("use: [{template: ./a.yaml}]\noffload: 3",
         "site.yaml:2:10: offload: expected a mapping with the keys mode, protocols, clamp_mss, trust_peers, plain, "
         "hardware, ports, marks, dscp, zones, after_packets, found a number"),
    ],
)  # fmt: skip
def test_mistakes(folder: Path, text: str, line: str) -> None:
    assert lines(folder, text) == [line]


def test_a_mistake_in_the_template_is_said_of_the_template(folder: Path) -> None:
    (folder / "a.yaml").write_text(A.replace("443,", "443, 70000,"))
    assert lines(folder, BOTH) == [
        "a.yaml:8:39: offload.ports[1]: 70000 is out of range, expected a port from 1 to 65535"
    ]
    (folder / "a.yaml").write_text(A + "\tx: 1\n")
    assert lines(folder, BOTH) == ["a.yaml:12:1: not valid YAML: a tab in the indentation (use spaces)"]
    (folder / "a.yaml").write_text("")
    assert lines(folder, BOTH) == ["a.yaml:1:1: is empty (it needs template, description and config)"]


def test_what_the_config_says_settles_what_templates_disagree_on(folder: Path) -> None:
    text = "use: [{template: ./a.yaml, set: {mode: off}}, {template: sub/b.yaml, set: {extra: 10.0.0.0/8}}]\n"
    assert site(folder, text + "offload: {mode: outbound-only}\n").config.offload.mode is Mode.OUTBOUND_ONLY


def test_templates_that_do_not_even_agree_on_the_kind_of_value(folder: Path) -> None:
    (folder / "sub" / "b.yaml").write_text(
        "template: b\ndescription: d\nconfig: {offload: {ports: 443}, tunnels: [x]}\n"
    )
    assert lines(folder, "use: [{template: ./a.yaml}, {template: sub/b.yaml}]") == [
        "sub/b.yaml:3:27: offload.ports: 443 here, but a list at a.yaml:8:33, and both templates are used "
        "(say in the config itself what it should be)",
        "sub/b.yaml:3:42: tunnels: a list here, but a mapping at a.yaml:10:12, and both templates are used "
        "(say in the config itself what it should be)",
    ]


def test_an_item_given_twice_in_one_file_is_still_a_mistake(folder: Path) -> None:
    assert lines(folder, BOTH + "devices: {lan: [x, x]}") == [
        "site.yaml:2:20: devices.lan[1]: x is in the list already (keep one of them)"
    ]


def test_tunnels_of_two_templates_that_claim_the_same(folder: Path) -> None:
    assert lines(folder, BOTH + "tunnels: {rome: {local: [10.1.0.0/16], remote: [10.2.3.0/24]}}") == [
        'a.yaml:10:13: tunnels.berlin: claims 10.1.0.0/16 to 10.2.0.0/16, which tunnel "rome" claims too within '
        "10.1.0.0/16 to 10.2.3.0/24 (make one of them narrower, or give each its own if_id)"
    ]


def test_paths_are_from_the_configs_folder_on_wherever_one_stands(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "site.yaml").write_text(BOTH)
    monkeypatch.chdir(folder / "sub")
    assert load("../site.yaml").where(("devices", "wan", 0)) == "../a.yaml:7:30"


def test_a_config_with_templates_reads_flowfasts_own_as_they_are() -> None:
    for name in library.names():
        assert load(name).tree.of(("devices", "lan", 0)).file == str(library.folder() / f"{name}.yaml")
