"""What libnftables prints and says, of each version, in the words of the model; and the model in the words of nft."""

import builtins
import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowfast.kernel import libnftables
from flowfast.kernel.libnftables import error_of, run
from flowfast.kernel.nft import RealNft
from flowfast.kernel.nft.listing import parse, range_text
from flowfast.model.errors import DecodeError, Unavailable
from flowfast.model.nftables import KEYWORDS, Set, Table, element_text, rule_hash
from flowfast.model.transaction import AddCounter, AddElements, AddFlowtable, AddRule, AddSet
from tests.nft_cases import FAST, INET


def _listing(*entries: dict[str, Any]) -> str:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}, *entries]})


def _set(**fields: Any) -> dict[str, Any]:
    return {"set": {"family": "inet", "name": "s", "table": "t", "handle": 4, "type": "ipv4_addr", **fields}}


@pytest.mark.parametrize("flags", [["interval"], "interval"])  # 1.1.4 wrote a single flag as a string
def test_interval_sets_of_all_versions(flags: Any) -> None:
    elements = [{"prefix": {"addr": "9.0.0.0", "len": 8}}, "1.2.3.4", {"range": ["10.0.0.1", "10.0.0.5"]}]
    elements += [{"elem": {"val": {"prefix": {"addr": "10.1.0.0", "len": 16}}, "timeout": 3}}]
    found = parse(_listing(_set(flags=flags, elem=elements))).sets["s"]
    assert found.interval
    assert [*found.elements] == [("9.0.0.0/8",), ("1.2.3.4",), ("10.0.0.1-10.0.0.5",), ("10.1.0.0/16",)]


def test_maps_of_concatenations_to_counters_and_verdicts() -> None:
    pair = {"concat": [{"prefix": {"addr": "10.1.0.0", "len": 16}}, "10.2.0.1"]}
    counter = {"name": "m", "type": ["ipv4_addr", "ipv4_addr"], "map": "counter", "flags": ["interval"]}
    verdict = {"name": "v", "type": "ifname", "map": "verdict"}
    chains = [["lan0", {"jump": {"target": "fastpath"}}], ["eth1", {"accept": None}]]
    listing = parse(_listing({"map": {**counter, "elem": [[pair, "out_a"]]}}, {"map": {**verdict, "elem": chains}}))
    assert listing.sets == {
        "m": Set("m", "ipv4_addr . ipv4_addr", True, "counter", {("10.1.0.0/16", "10.2.0.1"): "out_a"}),
        "v": Set("v", "ifname", False, "verdict", {("lan0",): "jump fastpath", ("eth1",): "accept"}),
    }


def test_rules_are_known_by_their_comment_alone() -> None:
    rules = [{"comment": "ff:0123456789ab"}, {"comment": "mine"}, {}]
    listing = parse(
        _listing(
            {"chain": {"name": "c"}},
            {"chain": {"name": "empty"}},
            *({"rule": {"chain": "c", "expr": [], **rule}} for rule in rules),
            {"counter": {"name": "n", "packets": 0, "bytes": 0}},
            {"flowtable": {"name": "f", "dev": "lo"}},
        )
    )
    assert listing.chains == {"c": ["ff:0123456789ab", "?", "?"], "empty": []}
    assert listing.counters == {"n"}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nftables": [{"set": {}}]}', '{"nftables": [{"chain": 5}]}'])
def test_nonsense_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(DecodeError):
        parse(text)


def test_a_range_that_is_a_prefix_is_one() -> None:
    assert range_text("10.0.0.0", "10.0.0.255") == "10.0.0.0/24"
    assert range_text("fd00::", "fd00::ffff") == "fd00::/112"
    assert range_text("100", "200") == "100-200"


# what nft says


@pytest.mark.parametrize(
    ("said", "line", "code"),
    [
        (
            "Error: Could not process rule: Device or resource busy\ndelete set inet t i\n                  ^\n",
            'nft: Device or resource busy: "i" in: delete set inet t i',
            errno.EBUSY,
        ),
        (
            "Error: No such file or directory; did you mean obj \u2018c1\u2019?\n"
            "delete counter inet t c9\n                      ^^\n",
            "nft: No such file or directory; did you mean obj 'c1'?: \"c9\" in: delete counter inet t c9",
            errno.ENOENT,
        ),
        (
            "internal:0:0-0: Error: Could not process rule: Operation not permitted\n",
            "nft: Operation not permitted",
            errno.EPERM,
        ),
        (
            "Error: interval overlaps with an existing one\nadd element inet t s { 10.0.0.0/25 }\n"
            "                       ^^^^^^^^^^^\n",
            'nft: interval overlaps with an existing one: "10.0.0.0/25" in: add element inet t s { 10.0.0.0/25 }',
            errno.EEXIST,
        ),
        (
            "Error: Chain already exists in table inet 't' with different declaration\nadd chain inet t c\n^^^\n",
            "nft: Chain already exists in table inet 't' with different declaration: \"add\" in: add chain inet t c",
            errno.EEXIST,
        ),
        (
            "Error: syntax error, unexpected newline\nno\n  ^\n",
            "nft: syntax error, unexpected newline: no",
            errno.EINVAL,
        ),
        ("", "nft: failed and does not say why", errno.EINVAL),
    ],
)
def test_errors_are_one_line_that_names_the_place(said: str, line: str, code: int) -> None:
    error = error_of(said)
    assert (str(error), error.code) == (line, code)


def test_a_long_command_is_shown_by_its_beginning() -> None:
    command = "add element inet t s { " + ", ".join(f"10.0.{i}.1" for i in range(256)) + " }"
    said = f"Error: Could not process rule: File exists\n{command}\n{' ' * 40}^^^^^^^^\n"
    assert len(str(error_of(said))) < 300


# without it


def test_without_the_binding_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fail(name: str, *more: Any, **others: Any) -> Any:
        if name == "nftables":
            raise ImportError(name)
        return real(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", fail)
    monkeypatch.setattr(libnftables, "_isolated", lambda: True)
    with pytest.raises(
        Unavailable, match=r"apt install python3-nftables.*py3-nftables on Alpine.*--system-site-packages"
    ):
        run("list tables")
    nft = RealNft()  # is made all the same
    with pytest.raises(Unavailable, match="python3-nftables"):
        nft.check([AddCounter(INET, "c")])


def test_tells_a_venv_that_hides_the_systems_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    for line, isolated in (("false", True), ("true", False)):
        (tmp_path / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = {line}\n")
        assert libnftables._isolated() is isolated


def test_importing_the_kernel_imports_no_libnftables() -> None:
    code = "import sys, flowfast.kernel.real, flowfast.kernel.fake; sys.exit('nftables' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# the other way


def test_elements_as_nft_writes_them() -> None:
    assert element_text(("10.1.0.0/16", "10.2.0.1")) == "10.1.0.0/16 . 10.2.0.1"
    assert element_text(("fd00::1", "dead::/16")) == "fd00::1 . dead::/16"
    assert element_text(("eth0.5",)) == '"eth0.5"'
    assert element_text(("accept",), "out_a") == '"accept" : "out_a"'
    assert element_text(("lan0",), "jump fastpath") == '"lan0" : jump fastpath'
    assert element_text(("10.0.0.1-10.0.0.5", "443")) == "10.0.0.1-10.0.0.5 . 443"


def test_quotes_are_nfts_affair_and_not_the_models() -> None:
    assert Set("s", "ifname", data="counter", elements={('"lan0"',): '"n"'}) == Set(
        "s", "ifname", data="counter", elements={("lan0",): "n"}
    )


def test_commands_as_nft_reads_them() -> None:
    assert str(AddFlowtable(INET, FAST)) == (
        'add flowtable inet flowfast fast { hook ingress priority 0; devices = { "v0" }; counter; }'
    )
    rule = "ct state != established return"
    assert str(AddRule(INET, "c", rule)) == f'add rule inet flowfast c {rule} comment "{rule_hash(rule)}"'
    pairs = Set("m", "ipv4_addr . ipv4_addr", True, "counter", {("10.2.0.0/16", "10.1.0.1"): "b"})
    assert str(AddSet(Table("inet", "t"), pairs)) == (
        "add map inet t m { type ipv4_addr . ipv4_addr : counter; flags interval; "
        'elements = { 10.2.0.0/16 . 10.1.0.1 : "b" }; }'
    )
    assert str(AddElements(INET, "lan", {("v1",): "", ("v0",): ""})) == ('add element inet flowfast lan { "v0", "v1" }')


def test_keywords_hold_what_is_tempting() -> None:
    assert {"offload", "flow", "flowtable", "fwd", "guard"} - KEYWORDS == {"guard"}
