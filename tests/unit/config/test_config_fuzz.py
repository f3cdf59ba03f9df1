"""Whatever is in the file: a config or a ConfigError, and every problem points into the text."""

import re
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowfast.config.compose import Unreadable, compose
from flowfast.config.hints import keys
from flowfast.config.load import load, parse
from flowfast.config.parameters import Template
from flowfast.config.problem import ConfigError, dotted
from flowfast.config.schema import Config
from flowfast.config.tree import Entries, Leaf, Listing, Node

RULES = [path.read_text() for path in sorted((Path(__file__).parents[3] / "rules").glob("*.yaml"))]
UNHURRIED = settings(deadline=None)  # a busy machine is no mistake of ours
KEYS = sorted({key for model in (Config, Template) for path in keys(model) for key in path if isinstance(key, str)})
YAMLISH = st.text(st.sampled_from("ab0:-?,[]{}#&*!|>'\"%@` \n\t\r.~<=/é\u2028\x85\ufeff"), max_size=60)
WORDS = st.sampled_from(
    [
        "",
        "lan0",
        "e*",
        "10.1.0.0/16",
        "::/0",
        "fd00::1",
        "off",
        "no",
        "1:30",
        "0x2a",
        "010",
        "~",
        "2026-01-01",
        "1e3",
        "=",
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=8) | st.dates()
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | WORDS, inner, max_size=5),
    max_leaves=25,
)


def judge(text: str) -> None:
    """Loads the text. An exception other than ConfigError fails the test, and so does a problem outside of the text."""
    try:
        assert parse(text, "c.yaml").config.devices.lan
    except ConfigError as error:
        assert error.problems
        rows = text.split("\n")
        for problem in error.problems:
            assert problem.line is not None
            assert problem.column is not None
            assert 1 <= problem.line <= len(rows)
            assert 1 <= problem.column <= len(rows[problem.line - 1]) + 1
            assert str(problem).isprintable()
            assert re.match(r"c\.yaml:\d+:\d+: \S", str(problem))


@UNHURRIED
@given(st.text() | YAMLISH)
@example("a:\n  - &x [*x]")
@example("? {a: b}\n: c")
@example("&a : *a")
@example("!!str")
@example("%YAML 3.0\n---\na")
@example("a: |\n  x\n b")
@example("- ")
@example("devices: {lan: [")
def test_any_text(text: str) -> None:
    judge(text)


@given(TREES)
@settings(UNHURRIED, max_examples=200)
def test_any_tree(tree: object) -> None:
    judge(yaml.safe_dump(tree, allow_unicode=True))


@given(st.sampled_from(RULES), st.data())
@settings(UNHURRIED, max_examples=200)
def test_an_example_with_a_piece_exchanged(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 30)))
    judge(text[:start] + data.draw(YAMLISH | WORDS | st.text(max_size=6)) + text[end:])


@UNHURRIED
@given(st.binary())
@example(b"\xff\xfe")
@example(b"devices: \xed\xa0\x80")
def test_any_bytes(raw: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(raw)
        try:
            assert load(file.name).config.devices.lan
        except ConfigError as error:
            assert all(problem.line is not None for problem in error.problems)


@UNHURRIED
@given(st.sampled_from(KEYS) | st.text(), TREES)
def test_any_value_of_any_key(key: str, tree: object) -> None:
    judge(yaml.safe_dump({"devices": {"lan": ["lan0"], "wan": ["wan0"]}, key: tree}))


@UNHURRIED
@given(TREES)
def test_every_scalar_stands_where_the_tree_says(tree: object) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True, width=10_000)
    for loader in (yaml.SafeLoader, yaml.CSafeLoader):
        try:
            root, _ = compose(text, loader)
        except Unreadable:
            continue
        for leaf in leaves(root):
            here = text[leaf.start :]
            assert here.startswith((leaf.value.text, "'", '"', "!", "|", ">"))


def leaves(node: Node | None) -> list[Leaf]:
    match node:
        case Leaf():
            return [node]
        case Listing():
            return [leaf for item in node.items for leaf in leaves(item)]
        case Entries():
            return [leaf for _, item in node.items.values() for leaf in leaves(item)]
    return []


@UNHURRIED
@given(YAMLISH)
def test_both_of_pyyamls_parsers_agree_or_refuse(text: str) -> None:
    trees = []
    for loader in (yaml.SafeLoader, yaml.CSafeLoader):
        try:
            trees.append(compose(text, loader)[0])
        except Unreadable as end:
            assert 0 <= end.mistake.start <= len(text)
    if len(trees) == 2:
        assert shape(trees[0]) == shape(trees[1])


def shape(node: Node | None) -> object:
    match node:
        case Leaf():
            return node.value.text
        case Listing():
            return [shape(item) for item in node.items]
        case Entries():
            return {key: shape(item) for key, (_, item) in node.items.items()}
    return None


@UNHURRIED
@given(st.lists(st.text() | st.integers(0, 99)))
def test_a_path_is_always_one_printable_line(path: list[str | int]) -> None:
    assert dotted(tuple(path)).isprintable()


def test_the_judge_is_not_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowfast.config.sources.compose", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        judge("a: b")
