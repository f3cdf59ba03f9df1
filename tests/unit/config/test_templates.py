"""Templates: the ones that come with flowfast, filling in, and every line that is printed about a wrong one."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from flowfast.config import library, sources
from flowfast.config.devices import check_devices
from flowfast.config.load import load, load_template, parse
from flowfast.config.parameters import Parameter, Type
from flowfast.config.problem import ConfigError
from flowfast.config.schema import Accounting, Config, Mode
from flowfast.config.selectors import Traits
from flowfast.config.tree import plain

ROOT = Path(__file__).parents[3]
NAMES = [
    "anima-acp",
    "cross-netns",
    "hub-and-spokes",
    "multi-sa-per-cpu",
    "outbound-only",
    "packet-offload-nic",
    "plain-router",
    "remote-access",
    "site-to-site-policy",
    "site-to-site-xfrm-interface",
]


def lines(text: str, settings: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "t.yaml", settings or {})
    return str(caught.value).split("\n")


def template(parameters: str, config: str = "") -> str:
    return (
        "template: t\n"
        "description: d\n"
        f"parameters: {{{parameters}}}\n"
        f"config: {{devices: {{lan: [lan0], wan: [wan0]}}, {config}}}\n"
    )


def test_there_is_a_template_for_each_kind_of_router() -> None:
    assert library.names() == NAMES
    assert [load_template(name).template.template for name in NAMES] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_template_loads_by_name_and_by_path_with_its_defaults(name: str) -> None:
    by_name, by_path = load(name).config, load(ROOT / "rules" / f"{name}.yaml").config
    assert by_name == by_path
    assert by_name.devices.lan == ("lan0",)
    assert by_name.devices.wan == (() if name == "cross-netns" else ("wan0",))


def other_values(parameter: Parameter) -> list[str]:
    """What may be typed for a parameter instead of its default."""
    match parameter.type:
        case Type.DEVICES:
            return ["eth7", "ens*,eth8"]
        case Type.PREFIXES:
            return ["10.7.0.0/16", "10.8.0.0/16,10.9.0.9"]
        case Type.CHOICE:
            return list(parameter.choices)
        case Type.BOOLEAN:
            return ["true", "false"]
        case Type.INTEGER:
            return ["0", "0x20"]
        case _:
            return ["other"]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_makes_a_difference(name: str) -> None:
    default = load(name).config
    for parameter, is_ in load_template(name).template.parameters.items():
        changed = [load(name, {parameter: value}).config for value in other_values(is_)]
        assert any(config != default for config in changed), parameter


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_of_a_template_is_a_config_of_its_own(name: str) -> None:
    parameters = {each: other_values(is_) for each, is_ in load_template(name).template.parameters.items()}
    for number in range(3):
        settings = {each: values[number % len(values)] for each, values in parameters.items()}
        if "lan" in settings and "wan" in settings:
            settings["wan"] = settings["wan"].replace("eth7", "wan7").replace("ens*,eth8", "wan8")
        filled = load(name, settings)
        written = yaml.safe_dump(plain(filled.tree.root), sort_keys=False)
        assert parse(written, "site.yaml").config == filled.config


@pytest.mark.parametrize("name", NAMES)
def test_every_template_says_what_it_is_for_before_its_text(name: str) -> None:
    text = load_template(name).text
    assert text.startswith("# ")
    assert "swanctl.conf" in text or name == "plain-router"
    assert all(len(line) <= 118 for line in text.split("\n"))


def test_templates_mean_what_their_names_say() -> None:
    assert load("outbound-only").config.offload.mode is Mode.OUTBOUND_ONLY
    assert load("packet-offload-nic").config.offload.mode is Mode.OUTBOUND_ONLY
    assert load("anima-acp").config.offload.mode is Mode.OFF
    assert load("site-to-site-policy").config.offload.mode is Mode.GUARDED
    assert load("plain-router").config.offload.plain
    assert not load("site-to-site-policy").config.offload.plain
    assert load("multi-sa-per-cpu").config.exporter.per_sa
    assert load("cross-netns", {"netns": "internet"}).config.underlay_netns == ("internet",)
    access = load("remote-access", {"pool": "10.50.0.0/16", "accounting": "off"}).config
    assert [str(prefix) for prefix in access.tunnels["access"].remote] == ["10.50.0.0/16"]
    assert access.accounting is Accounting.OFF


def test_a_file_here_comes_before_a_template_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("plain-router").file == str(library.folder() / "plain-router.yaml")
    Path("plain-router").write_text("devices: {lan: [mine], wan: [wan0]}\n")
    assert load("plain-router").config.devices.lan == ("mine",)


def test_an_installed_package_has_its_templates_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert library.folder() == ROOT / "rules"
    monkeypatch.setattr(library, "PACKAGE", tmp_path / "flowfast")
    (tmp_path / "flowfast" / "rules").mkdir(parents=True)
    (tmp_path / "flowfast" / "rules" / "mine.yaml").write_text(template(""))
    assert library.names() == ["mine"]
    assert load("mine").config.devices.lan == ("lan0",)


def test_the_wheel_takes_the_templates_to_where_they_are_looked_for() -> None:
    import tomllib

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["rules"] == "flowfast/rules"


EVERY = """
template: every
description: Has a parameter of each type.
parameters:
  one: {type: device, description: d, default: lan0}
  some: {type: devices, description: d, default: ["e*", {driver: "mlx5*"}]}
  prefix: {type: prefix, description: d, default: 10.1.0.0/16}
  prefixes: {type: prefixes, description: d, default: [10.2.0.0/16, "fd00:2::/64"]}
  peer: {type: address, description: d, default: 192.0.2.1}
  number: {type: integer, description: d, default: 0x2a}
  yes_no: {type: boolean, description: d, default: off}
  word: {type: string, description: d, default: underlay}
  way: {type: choice, description: d, choices: [off, guarded], default: guarded}
  maybe: {type: integer, description: d, required: false}
config:
  devices: {lan: [$one, $some, eth9], wan: [wan0]}
  tunnels: {a: {local: [$prefix, "fd00:1::/64"], remote: $prefixes, peer: $peer, if_id: $number, reqid: $maybe}}
  defaults: {offload: $yes_no}
  offload: {mode: $way, zones: [1, $maybe]}
  underlay_netns: [$word, $$word]
"""


def test_each_type_of_parameter_by_its_default() -> None:
    config = parse(EVERY, "t.yaml").config
    tunnel = config.tunnels["a"]
    assert config.devices.lan == ("lan0", "e*", Traits(driver="mlx5*"), "eth9")
    assert [str(each) for each in (*tunnel.local, *tunnel.remote)] == [
        "10.1.0.0/16",
        "fd00:1::/64",
        "10.2.0.0/16",
        "fd00:2::/64",
    ]
    assert (str(tunnel.peer), tunnel.if_id, tunnel.reqid) == ("192.0.2.1", 42, None)
    assert (config.defaults.offload, config.offload.mode, config.offload.zones) == (False, Mode.GUARDED, (1,))
    assert config.underlay_netns == ("underlay", "$word")


def test_each_type_of_parameter_as_typed() -> None:
    typed = {
        "one": "no",  # the name of a device, whatever YAML takes the word for
        "some": "a, b",
        "prefix": "10.5.0.0/16",
        "prefixes": "10.6.0.0/16,fd00:6::/64",
        "peer": "2001:db8:1:2:3:4:5:6",
        "number": "7",
        "yes_no": "yes",
        "word": "42",
        "way": "off",
        "maybe": "3",
    }
    config = parse(EVERY, "t.yaml", typed).config
    tunnel = config.tunnels["a"]
    assert config.devices.lan == ("no", "a", "b", "eth9")
    assert (str(tunnel.local[0]), str(tunnel.remote[1]), str(tunnel.peer)) == (
        "10.5.0.0/16",
        "fd00:6::/64",
        "2001:db8:1:2:3:4:5:6",
    )
    assert (tunnel.if_id, tunnel.reqid, config.offload.zones) == (7, 3, (1, 3))
    assert (config.defaults.offload, config.offload.mode) == (True, Mode.OFF)
    assert config.underlay_netns[0] == "42"


def test_an_empty_list_may_be_typed() -> None:
    text = template("x: {type: prefixes, description: d, default: [10.0.0.0/8]}", "exclude: {addresses: $x}")
    assert parse(text, "t.yaml", {"x": ""}).config.exclude.addresses == ()


@pytest.mark.parametrize(
    ("parameters", "config", "line"),
    [
        ("a: {description: d, default: x}", "", "t.yaml:3:14: parameters.a.type: missing (as type: \"devices\")"),
        ("a: {type: devcie, description: d, default: x}", "", 't.yaml:3:24: parameters.a.type: "devcie" is not a type '
         "of parameter (one of device, devices, prefix, prefixes, address, integer, boolean, string, choice)"),
        ("a: {type: string, default: x}", "", "t.yaml:3:14: parameters.a.description: missing "
         '(as description: "Devices towards the hosts.")'),
        ("a: {type: string, description: '', default: x}", "",
         "t.yaml:3:32: parameters.a.description: expected a description in words, found nothing"),
        ("a: {type: string, description: d}", "",
         "t.yaml:3:14: parameters.a.default: missing (give it a default, or required: true)"),
        ("a: {type: string, description: d, default: x, required: true}", "",
         "t.yaml:3:57: parameters.a.default: of no use where a value is required (keep one of the two)"),
        ("a: {type: integer, description: d, default: x}", "",
         "t.yaml:3:58: parameters.a.default: expected a whole number, found text"),
        ("a: {type: prefixes, description: d, default: [10.0.0.1/8]}", "",
         't.yaml:3:60: parameters.a.default[0]: "10.0.0.1/8" has bits set behind its prefix length '
         "(write 10.0.0.0/8, or one address as 10.0.0.1)"),
        ("a: {type: devices, description: d, default: x}", "",
         "t.yaml:3:58: parameters.a.default: expected a list of device names, found text (write [x])"),
        ("a: {type: choice, description: d, default: x}", "",
         "t.yaml:3:14: parameters.a.choices: missing, a choice has some (as choices: [guarded, outbound-only])"),
        ("a: {type: choice, description: d, default: x, choices: [y, z]}", "",
         't.yaml:3:57: parameters.a.default: "x" is none of the choices (one of y, z)'),
        ("a: {type: string, description: d, default: x, choices: [y]}", "",
         "t.yaml:3:60: parameters.a.choices: a parameter of type string has none (leave them out)"),
        ("a: {type: string, description: d, default: x, min: 3}", "", "t.yaml:3:60: parameters.a.min: unknown key "
         "(known here: type, description, default, required, choices)"),
        ("A: {type: string, description: d, default: x}", "", 't.yaml:3:14: parameters.A: "A" cannot be the name of a '
         "parameter (small letters, digits and _, at most 32, a letter first)"),
        ("a: {type: string, description: d, default: x}", "",
         "t.yaml:3:14: parameters.a: is used nowhere in config (write $a where its value belongs)"),
        ("lan: {type: devices, description: d, default: [x]}", "exclude: {tunnels: $lna}",
         't.yaml:3:14: parameters.lan: is used nowhere in config (write $lan where its value belongs)\n'
         't.yaml:4:66: "$lna": no such parameter (did you mean "lan"?)'),
        ("", "exclude: {tunnels: [a-$x]}", 't.yaml:4:67: "a-$x": a parameter stands for a whole value only '
         "(write the value out, or make all of it a parameter)"),
        ("", "use: []", "t.yaml:4:47: config.use: a template does not use others (use both of them in a config)"),
        ("", "offlaod: {}", 't.yaml:4:47: offlaod: unknown key (did you mean "offload"?)'),
    ],
)  # fmt: skip
def test_mistakes_in_a_template(parameters: str, config: str, line: str) -> None:
    assert "\n".join(lines(template(parameters, config))) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("config: {}", 't.yaml:1:1: template: missing (as template: "site-to-site-policy")\n'
         't.yaml:1:1: description: missing (as description: "A branch office router.")'),
        ("template: t\ndescription: d", 't.yaml:1:1: config: missing (as config: {"devices": {"lan": "$lan", '
         '"wan": "$wan"}})'),
        ("template: t\ndescription: d\nconfig: [a]", "t.yaml:3:1: config: expected a mapping of the keys of a config, "
         "found a list"),
        ("template: A b\ndescription: d\nconfig: {}", 't.yaml:1:11: template: "A b" cannot be the name of a template '
         "(small letters, digits and -, at most 63)"),
        ("template: t\ndescription: d\nconfig: {}\ndevices: {}", "t.yaml:4:1: devices: unknown key "
         "(known here: template, description, parameters, config)"),
        ("template: t\ndescription: d\nparameters: []\nconfig: {}", "t.yaml:3:1: parameters: expected a mapping of "
         "parameter names to what they are, found a list"),
        ("template: t\ndescription: d\nconfig: {loop: {}}", "t.yaml:3:9: devices: missing "
         '(as devices: {"lan": ["lan0"], "wan": ["wan0"]})'),
    ],
)  # fmt: skip
def test_mistakes_in_the_head_of_a_template(text: str, line: str) -> None:
    assert "\n".join(lines(text)) == line


TYPED = template(
    "lan: {type: devices, description: d, required: true}, n: {type: integer, description: d, default: 3},"
    " w: {type: choice, description: d, choices: [guarded, off], default: off},"
    " ps: {type: prefixes, description: d, default: []}",
    "exclude: {tunnels: $lan, addresses: $ps}, loop: {debounce_ms: $n}, offload: {mode: $w}",
)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "t.yaml:3:14: parameters.lan: has no value, and no default (give it one: --set lan=...)"),
        ({"lam": "x", "lan": "x"}, 't.yaml:3:1: --set lam=x: no such parameter (did you mean "lan"?)'),
        ({"zzzz": "x", "lan": "x"}, "t.yaml:3:1: --set zzzz=x: no such parameter (there are: lan, n, w, ps)"),
        ({"lan": "a/b"}, "t.yaml:3:14: --set lan=a/b: \"a/b\" cannot be the name of a device: it has the character '/' "
         "in it"),
        ({"lan": "a,,b"}, 't.yaml:3:14: --set lan=a,,b: "" cannot be the name of a device'),
        ({"lan": "a", "n": "x"}, "t.yaml:3:68: --set n=x: expected a whole number, found text"),
        ({"lan": "a", "n": "1:30"}, 't.yaml:3:68: --set n=1:30: expected a whole number, found "1:30" '
         "(write it in plain decimal digits, or as 0x2a)"),
        ({"lan": "a", "w": "on"}, 't.yaml:3:116: --set w=on: "on" is none of the choices (one of guarded, off)'),
        ({"lan": "a", "ps": "x,10.0.0.0/8"},
         't.yaml:3:190: --set ps=x,10.0.0.0/8: "x" is not a prefix (such as 10.1.0.0/16 or fd00:1::/64)'),
        # Right by itself, wrong where it stands: still said of what was typed.
        ({"lan": "a", "n": "99"}, "t.yaml:4:109: loop.debounce_ms (--set n=99): 99 is out of range, "
         "expected a number of milliseconds from 0 to 50"),
        ({"lan": "a,a"}, "t.yaml:4:66: exclude.tunnels[1] (--set lan=a,a): a is in the list already "
         "(keep one of them)"),
        ({"lan": "x" * 80}, f"t.yaml:3:14: --set lan={'x' * 57}...: \"{'x' * 57}...\" is too long: "
         "the name of a device has at most 15 bytes"),
    ],
)  # fmt: skip
def test_mistakes_in_what_is_typed(settings: dict[str, str], line: str) -> None:
    assert "\n".join(lines(TYPED, settings)) == line


def test_a_list_that_may_not_be_empty_where_it_stands_is_said_of_what_was_typed() -> None:
    with pytest.raises(ConfigError) as caught:
        load("outbound-only", {"lan": ""})
    assert str(caught.value).endswith(
        ":10: devices.lan (--set lan=): expected a list of device names, found an empty list"
    )


def test_a_config_has_no_parameters() -> None:
    assert lines("devices: {lan: [a], wan: [b]}", {"wan": "x"}) == [
        "t.yaml:1:1: --set wan=x: a config has no parameters (change the file, or use a template)"
    ]


def test_what_is_typed_cannot_break_the_line() -> None:
    (line,) = lines(TYPED, {"lan": "a\n\x1b[31m"})
    assert line.isprintable()


def test_values_stand_where_they_were_written() -> None:
    file = library.folder() / "site-to-site-policy.yaml"
    text = file.read_text().split("\n")
    loaded = load(file, {"wan": "eth0"})

    def there(path: tuple[str | int, ...]) -> str:
        _, line, column = loaded.where(path).rsplit(":", 2)
        return text[int(line) - 1][int(column) - 1 :]

    assert there(("devices", "lan", 0)) == "lan0]"  # the default
    assert there(("devices", "wan", 0)) == "$wan"  # typed: where it was put
    assert there(("offload", "mode")) == "guarded"
    assert there(("devices",)) == "devices:"


def test_a_device_that_is_not_there_is_said_of_what_was_typed() -> None:
    file = library.folder() / "outbound-only.yaml"
    line = next(at for at, text in enumerate(file.read_text().split("\n"), 1) if text == "    lan: $lan")
    problems = check_devices(load(file, {"lan": "eth9"}), ["eth0", "wan0"])
    assert [str(problem) for problem in problems] == [
        f'{file}:{line}:10: devices.lan (--set lan=eth9): no device named "eth9" (did you mean "eth0"?)'
    ]


def test_parameters_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_NODES", 50)
    uses = ", ".join(["$p"] * 20)
    text = template(
        "p: {type: prefixes, description: d, default: [10.0.0.0/8, 11.0.0.0/8]}", f"exclude: {{x: [{uses}]}}"
    )
    assert any("more than 50 values, with parameters filled in (write less)" in line for line in lines(text))


def test_a_template_may_be_part_of_a_config_only() -> None:
    part = "template: t\ndescription: d\nconfig: {exclude: {ports: [21]}}\n"
    assert lines(part) == ['t.yaml:3:9: devices: missing (as devices: {"lan": ["lan0"], "wan": ["wan0"]})']


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(NAMES, 2)))
def test_any_two_templates_fit_together_or_say_why_not(one: str, other: str) -> None:
    text = f"use: [{{template: {one}}}, {{template: {other}}}]\n"
    said: Config | list[str]
    try:
        said = parse(text, "t.yaml").config
    except ConfigError as error:
        said = str(error).split("\n")
    if isinstance(said, list):
        assert all("and both templates are used (say in the config itself what it should be)" in line for line in said)
        assert not {"plain-router", "cross-netns", "multi-sa-per-cpu", "site-to-site-xfrm-interface"} & {one, other}
    else:
        assert said.devices.lan == ("lan0",)
