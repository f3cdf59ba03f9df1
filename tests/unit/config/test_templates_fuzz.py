"""Whatever a template says, and whatever is typed or used: a config or a ConfigError. Merging keeps its promises."""

import tempfile
from pathlib import Path

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowfast.config.library import names
from flowfast.config.load import load, load_template, parse
from flowfast.config.merge import same
from flowfast.config.problem import ConfigError
from flowfast.config.schema import Config
from flowfast.config.sources import Sources
from flowfast.config.tree import plain
from tests.unit.config.test_config_fuzz import TREES, UNHURRIED

PARAMETERS = {name: list(load_template(name).template.parameters) for name in names()}
VALUES = st.sampled_from(
    [
        "",
        "lan0",
        "wan0",
        "e*,x",
        ",",
        "10.1.0.0/16",
        "::/0,10.0.0.0/8",
        "off",
        "true",
        "0",
        "0x2a",
        "-1",
        "$lan",
        "{a: b}",
    ]
) | st.text(max_size=12)
TYPES = st.sampled_from(
    ["device", "devices", "prefix", "prefixes", "address", "integer", "boolean", "string", "choice", "x"]
)
DEFAULTS = st.none() | st.booleans() | st.integers(-1, 99) | st.sampled_from(["lan0", "10.0.0.0/8", "off", "$a"])
PARAMETER = st.fixed_dictionaries(
    {"type": TYPES, "description": st.just("d")},
    optional={"default": DEFAULTS | st.lists(DEFAULTS, max_size=3), "required": st.booleans(), "choices": TREES},
)
REFERENCES = st.sampled_from(["$a", "$b", "$c", "$$a", "$", "a$b", "lan0", "443"])
CONFIGS = st.recursive(
    REFERENCES | DEFAULTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["devices", "lan", "wan", "offload", "ports", "mode", "tunnels", "t", "local"]), inner
        )
    ),
    max_leaves=20,
)


def judge(text: str, typed: dict[str, str] | None = None, file: str = "t.yaml") -> Config | None:
    """Loads the text. An exception other than ConfigError fails the test, and so does a line without a place."""
    try:
        return parse(text, file, typed or {}).config
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.line is not None
            assert problem.column is not None
            assert str(problem).isprintable()
    return None


@UNHURRIED
@given(TREES, TREES)
def test_any_tree_as_a_template(parameters: object, config: object) -> None:
    head = {"template": "t", "description": "d"}
    judge(yaml.safe_dump({**head, "parameters": parameters, "config": config}, allow_unicode=True))


@given(st.dictionaries(st.sampled_from("abc"), PARAMETER), CONFIGS, st.dictionaries(st.sampled_from("abcd"), VALUES))
@settings(UNHURRIED, max_examples=200)
def test_any_parameters_in_any_place(parameters: object, config: object, typed: dict[str, str]) -> None:
    whole = {"devices": {"lan": ["$a", "lan0"], "wan": "$b"}, "defaults": config}
    for body in (config, whole):
        head = {"template": "t", "description": "d", "parameters": parameters, "config": body}
        judge(yaml.safe_dump(head, sort_keys=False), typed)


@given(st.sampled_from(names()), st.data())
@settings(UNHURRIED, max_examples=200)
def test_anything_typed_for_a_template_of_ours(name: str, data: st.DataObject) -> None:
    # wan0 as LAN would be a mistake about the default of the WAN, which nobody typed.
    values = VALUES.filter(lambda value: value != "wan0")
    typed = data.draw(st.dictionaries(st.sampled_from(PARAMETERS[name]) | st.text(max_size=5), values, max_size=4))
    try:
        assert load(name, typed).config.devices.lan
    except ConfigError as error:
        # Each line names something that was typed: the template itself is right.
        for problem in error.problems:
            assert "--set " in str(problem)


@given(st.lists(st.sampled_from([*names(), "nobody", "./t.yaml", "./"]), max_size=3), TREES, TREES)
@settings(UNHURRIED, max_examples=150)
@example(["./t.yaml", "./t.yaml"], {}, {"devices": {"lan": ["a"]}})
def test_any_use_of_templates(used: list[str], given_: object, tree: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        head = {"template": "t", "description": "d", "config": tree}
        (Path(folder) / "t.yaml").write_text(yaml.safe_dump(head, allow_unicode=True))
        uses = [{"template": name, "set": given_} for name in used]
        judge(yaml.safe_dump({"use": uses, "exclude": tree}, allow_unicode=True), file=f"{folder}/site.yaml")


SITES = st.fixed_dictionaries(
    {"devices": st.fixed_dictionaries({"lan": st.just(["lan0", "lan1"]), "wan": st.just(["wan0"])})},
    optional={
        "offload": st.fixed_dictionaries(
            {}, optional={"mode": st.sampled_from(["guarded", "off"]), "ports": st.just([443, "5000-5100"])}
        ),
        "exclude": st.fixed_dictionaries({}, optional={"tunnels": st.lists(st.sampled_from("abc"), unique=True)}),
        "tunnels": st.dictionaries(
            st.sampled_from("xyz"), st.just({"local": ["10.1.0.0/16"], "remote": ["10.2.0.0/16"]}), max_size=1
        ),
        "notrack": st.booleans(),
    },
)


def as_used(template: object, own: object) -> Config | None:
    with tempfile.TemporaryDirectory() as folder:
        head = {"template": "t", "description": "d", "config": template}
        (Path(folder) / "t.yaml").write_text(yaml.safe_dump(head, sort_keys=False))
        uses = {"use": [{"template": "./t.yaml"}, {"template": "./t.yaml"}]}
        text = yaml.safe_dump({**uses, **(own if isinstance(own, dict) else {})}, sort_keys=False)
        config = judge(text, file=f"{folder}/site.yaml")
        return None if config is None else config.model_copy(update={"use": ()})


@UNHURRIED
@given(SITES)
def test_a_template_used_twice_by_a_config_that_says_the_same_changes_nothing(site: dict[str, object]) -> None:
    alone = judge(yaml.safe_dump(site, sort_keys=False))
    assert alone is not None
    assert as_used(site, {}) == alone
    assert as_used(site, site) == alone


@UNHURRIED
@given(SITES, SITES)
def test_what_the_config_says_stays_as_it_is(own: dict[str, dict[str, object]], site: dict[str, object]) -> None:
    alone, together = judge(yaml.safe_dump(own, sort_keys=False)), as_used(site, own)
    assert alone is not None
    if together is None:
        return  # tunnels of both that claim the same packets
    assert together.exclude.tunnels[: len(alone.exclude.tunnels)] == alone.exclude.tunnels
    assert set(together.tunnels) >= set(alone.tunnels)
    assert together.offload.mode == alone.offload.mode or "mode" not in own.get("offload", {})
    assert "notrack" not in own or together.notrack == alone.notrack


@UNHURRIED
@given(TREES)
def test_a_tree_written_down_again_is_the_same_tree(tree: object) -> None:
    try:
        first = Sources().tree(yaml.safe_dump({"x": tree}, allow_unicode=True), "c.yaml", "")
        again = Sources().tree(yaml.safe_dump(plain(first.root), allow_unicode=True), "c.yaml", "")
    except ConfigError:
        return  # a key that is no text, a character that is not YAML's
    assert same(again.root) == same(first.root)
