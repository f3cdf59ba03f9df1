"""What a right file means, what is said where there is no text to point at, and places for later findings."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml

from flowfast.config.compose import compose
from flowfast.config.load import LoadedConfig, load, parse
from flowfast.config.problem import ConfigError
from flowfast.config.schema import Accounting, Mode, Protocol
from flowfast.config.sources import MAX_BYTES
from flowfast.config.traffic import Mark, Ports
from flowfast.model.errors import UsageError

ROOT = Path(__file__).parents[3]
RULES = sorted((ROOT / "rules").glob("*.yaml"))
DEVICES = "devices: {lan: [lan0], wan: [wan0]}\n"


def test_a_full_file_means_what_it_says() -> None:
    config = parse(
        """
version: 1
devices: {lan: [lan0, "ens*"], wan: [wan0]}
tunnels:
  berlin:
    local: [10.1.0.0/16, fd00:1::/64]
    remote: [10.2.0.0/16, "fd00:2::/64"]
    peer: 192.0.2.2
    reqid: 7
    if_id: 0x2a
    interface: xfrm0
    offload: no
  paris: {peer: 2001:db8:1:2:3:4:5:6}
defaults: {offload: true}
offload: {mode: outbound-only, protocols: [udp], clamp_mss: false}
accounting: precise
underlay_netns: [internet]
exporter: {enabled: off, listen: "[::1]:9000", per_sa: yes}
loop: {debounce_ms: 5}
""",
        "c.yaml",
    ).config
    berlin = config.tunnels["berlin"]
    assert config.devices.lan == ("lan0", "ens*")
    assert berlin.local == (ip_network("10.1.0.0/16"), ip_network("fd00:1::/64"))
    assert berlin.pairs == (
        (ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")),
        (ip_network("fd00:1::/64"), ip_network("fd00:2::/64")),
    )
    assert (berlin.peer, berlin.reqid, berlin.if_id) == (ip_address("192.0.2.2"), 7, 42)
    assert (berlin.interface, berlin.offload) == ("xfrm0", False)
    # YAML 1.1 takes this address for a number in base 60.
    assert config.tunnels["paris"].peer == ip_address("2001:db8:1:2:3:4:5:6")
    assert (config.offload.mode, config.offload.protocols) == (Mode.OUTBOUND_ONLY, (Protocol.UDP,))
    assert (config.accounting, config.underlay_netns) == (Accounting.PRECISE, ("internet",))
    assert (config.exporter.enabled, str(config.exporter.listen), config.exporter.per_sa) == (False, "[::1]:9000", True)
    assert config.loop.debounce_ms == 5


def test_the_least_that_works_has_safe_defaults() -> None:
    config = parse(DEVICES, "c.yaml").config
    assert (config.version, config.offload.mode, config.accounting) == (1, Mode.GUARDED, Accounting.SA)
    assert (str(config.exporter.listen), config.exporter.per_sa) == ("127.0.0.1:9833", False)
    assert (config.exporter.tls, config.exporter.sa_limit) == (None, 1000)
    assert config.offloads(None)
    assert config.tunnels == {}


@pytest.mark.parametrize(
    ("more", "version", "required"),
    [
        ("", "1.2", False),
        (", client_cafile: /ca.pem, min_version: 1.3", "1.3", True),
        (", client_cafile: /ca.pem, client_auth_required: false, min_version: '1.2'", "1.2", False),
    ],
)
def test_tls_of_the_exporter(more: str, version: str, required: bool) -> None:
    tls = parse(
        DEVICES + f"exporter: {{tls: {{certfile: /c.pem, keyfile: /k.pem{more}}}}}", "c.yaml"
    ).config.exporter.tls
    assert tls is not None
    assert (tls.certfile, tls.min_version, tls.requires_clients) == ("/c.pem", version, required)


def test_what_is_offloaded_may_be_narrowed_down() -> None:
    config = parse(
        DEVICES
        + """
offload:
  plain: true
  ports: [443, 5050-5200, "5000-5100"]
  marks: [0x10/0xff, 7]
  dscp: [ef, CS1, 0]
  zones: [0, 7]
  after_packets: 20
exclude:
  addresses: [10.1.2.0/24, "fd00::1", 10.0.0.0/8]
  ports: [21]
  marks: ["0x3"]
  dscp: [af41]
  tunnels: [berlin, "if-*", "pool-2001:db8::1"]
notrack: true
""",
        "c.yaml",
    ).config
    offload, exclude = config.offload, config.exclude
    assert (offload.plain, offload.after_packets, offload.zones, config.notrack) == (True, 20, (0, 7), True)
    # Ranges that overlap are one: an nft set refuses them.
    assert offload.ports == (Ports(443, 443), Ports(5000, 5200))
    assert [str(ports) for ports in offload.ports] == ["443", "5000-5200"]
    assert offload.marks == (Mark(0x10, 0xFF), Mark(7, 0xFFFF_FFFF))
    assert [str(mark) for mark in offload.marks] == ["0x10/0xff", "0x7"]
    assert offload.dscp == (46, 8, 0)
    assert exclude.addresses == (ip_network("fd00::1"), ip_network("10.0.0.0/8"))
    assert (exclude.ports, exclude.marks, exclude.dscp) == ((Ports(21, 21),), (Mark(3),), (34,))
    assert [name for name in ("berlin", "bonn", "if-3", "reqid-3") if exclude.tunnel(name)] == ["berlin", "if-3"]
    assert (config.offloads("berlin"), config.offloads("bonn")) == (False, True)


def test_without_a_word_nothing_is_narrowed_down() -> None:
    offload, exclude = parse(DEVICES, "c.yaml").config.offload, parse(DEVICES, "c.yaml").config.exclude
    assert (offload.plain, offload.after_packets) == (False, 0)
    assert offload.ports == offload.marks == offload.dscp == offload.zones == ()
    assert exclude == parse(DEVICES + "exclude: {ports: [], addresses: [], tunnels: []}", "c.yaml").config.exclude
    assert not exclude.tunnel("berlin")


def test_off_is_a_word_where_a_word_is_expected() -> None:
    config = parse(DEVICES + "accounting: off\noffload: {mode: off}\n", "c.yaml").config
    assert (config.accounting, config.offload.mode) == (Accounting.OFF, Mode.OFF)
    assert not config.offloads(None)


def test_a_tunnels_own_offload_setting_wins_over_the_default() -> None:
    config = parse(
        DEVICES + "defaults: {offload: false}\ntunnels: {a: {if_id: 1, offload: true}, b: {if_id: 2}}\n", "c.yaml"
    ).config
    assert (config.offloads("a"), config.offloads("b"), config.offloads(None)) == (True, False, False)


def test_a_section_whose_content_is_commented_out_is_left_out() -> None:
    text = DEVICES + "tunnels:\n#  berlin: {}\noffload:\n  mode:\nexporter: ~\n"
    assert parse(text, "c.yaml").config == parse(DEVICES, "c.yaml").config


def test_a_config_cannot_be_changed() -> None:
    config = parse(DEVICES, "c.yaml").config
    with pytest.raises(ValueError, match="frozen"):
        setattr(config.devices, "lan", ("other",))  # noqa: B010 - an assignment would not pass the type checker


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_every_file_in_rules_loads(path: Path) -> None:
    assert load(path).config.devices.lan


def test_no_file_a_directory_and_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    for path, sentence in ((missing, "no such file"), (tmp_path, "is a directory, not a file")):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: {sentence}"
        assert caught.value.problems[0].line is None
    with pytest.raises(ConfigError, match="cannot be read"):
        load("a\0b")
    with pytest.raises(ConfigError, match="cannot be read: File name too long"):
        load("a" * 5000)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything: the kernel would not say no
    with pytest.raises(ConfigError, match="may not be read: permission denied"):
        load(tmp_path / "c.yaml")


def test_bytes_that_are_not_utf8_are_placed(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes("devices:\n  # ü ".encode() + b"\xff\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}:2:7: is not UTF-8: byte 0xff here (save it as UTF-8)"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + DEVICES.replace("\n", "\r\n").encode() + b"x: 1\r\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}:2:1: x: unknown key")


def test_a_huge_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match=rf"/dev/zero:1:1: is larger than {MAX_BYTES >> 20} MiB"):
        load("/dev/zero")


def test_an_error_is_a_usage_error_with_exit_code_2() -> None:
    with pytest.raises(UsageError) as caught:
        parse("", "c.yaml")
    assert caught.value.exit_code == 2


def test_what_the_user_wrote_cannot_break_the_line_or_fill_the_screen() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(DEVICES + 'tunnels: {"a\\nb\\e[31m' + "x" * 500 + '": {if_id: 1}}', "c.yaml")
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 400


def loaded() -> LoadedConfig:
    return parse("devices:\n  lan: [lan0,\n    lan1]\n  wan: [wan0]\n", "site.yaml")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("devices", "lan", 0), "site.yaml:2:9"),
        (("devices", "lan", 1), "site.yaml:3:5"),
        (("devices", "lan"), "site.yaml:2:3"),
        (("devices", "lan", 7), "site.yaml:2:3"),
        (("offload", "mode"), "site.yaml:1:1"),
        ((), "site.yaml:1:1"),
    ],
)
def test_where_places_what_is_found_out_later(path: tuple[str | int, ...], place: str) -> None:
    assert loaded().where(path) == place
    assert str(loaded().problem(path, "bad", "fix it")).startswith(f"{place}: ")


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader])
def test_both_of_pyyamls_parsers_give_the_same_tree(loader: type) -> None:
    for path in RULES:
        text = path.read_text()
        assert compose(text, loader) == compose(text)
