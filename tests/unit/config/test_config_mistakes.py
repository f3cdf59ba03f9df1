"""Every kind of mistake: the whole line, with its place, as the operator sees it."""

from ipaddress import ip_network

import pytest

from flowfast.config.load import parse
from flowfast.config.problem import ConfigError

DEVICES = "devices: {lan: [lan0], wan: [wan0]}\n"


def lines(text: str) -> list[str]:
    """What `check` would print for the text."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "c.yaml")
    return str(caught.value).split("\n")


def only(text: str) -> str:
    """The one line that is printed for the text."""
    (line,) = lines(text)
    return line


def below(rest: str) -> str:
    """The one line for a text that begins with valid devices."""
    return only(DEVICES + rest)


def test_the_issues_four_mistakes_are_one_line_each() -> None:
    assert lines(
        "devcies: {}\n"
        "devices:\n"
        "  lan: 3\n"
        "  wan: [wan0]\n"
        "tunnels:\n"
        "  berlin: {local: [10.1.0.0/16], remote: [10.2.0.0/16]}\n"
        "  paris:\n"
        "    local: [10.1.0.0/16]\n"
        "    remote: [10.2.3.0/24]\n"
    ) == [
        'c.yaml:1:1: devcies: unknown key (did you mean "devices"?)',
        "c.yaml:3:8: devices.lan: expected a list of device names, found a number (write [3])",
        'c.yaml:7:3: tunnels.paris: claims 10.1.0.0/16 to 10.2.3.0/24, which tunnel "berlin" claims too'
        " within 10.1.0.0/16 to 10.2.0.0/16 (make one of them narrower, or give each its own if_id)",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("devices: {wan: [wan0]}", 'c.yaml:1:1: devices.lan: missing (as lan: ["lan0"])'),
        ("version: 1", 'c.yaml:1:1: devices: missing (as devices: {"lan": ["lan0"], "wan": ["wan0"]})'),
        ("devices:\n  wan: [a]\n  lan:\n", 'c.yaml:3:3: devices.lan: has no value (as lan: ["lan0"])'),
        (
            "devices: {lan: [lan0]}",
            "c.yaml:1:1: devices.wan: missing (name the devices on which ESP packets come in; "
            "only with underlay_netns there may be none)",
        ),
        (
            "devices: {lan: [], wan: [wan0]}",
            "c.yaml:1:11: devices.lan: expected a list of device names, found an empty list",
        ),
        (
            "devices: {lan: [a, b], wan: [c, b]}",
            "c.yaml:1:33: devices.wan[1]: b is in devices.lan too, as b (a device faces one side: remove it from one)",
        ),
        (
            'devices: {lan: ["e*"], wan: [eth0]}',
            "c.yaml:1:30: devices.wan[0]: eth0 is in devices.lan too, as e* "
            "(a device faces one side: remove it from one)",
        ),
        (
            "devices: {lan: [a, b, a], wan: [c]}",
            "c.yaml:1:23: devices.lan[2]: a is in the list already (keep one of them)",
        ),
        (
            "devices: {lan: [a23456789012345x], wan: [c]}",
            'c.yaml:1:17: devices.lan[0]: "a23456789012345x" is too long: the name of a device has at most 15 bytes',
        ),
        (
            "devices: {lan: [a/b], wan: [c]}",
            "c.yaml:1:17: devices.lan[0]: \"a/b\" cannot be the name of a device: it has the character '/' in it",
        ),
        (
            "devices: {lan: [no], wan: [c]}",
            "c.yaml:1:17: devices.lan[0]: expected a device name or glob, found a boolean "
            '(YAML takes no for a boolean: write "no" if the word is meant)',
        ),
        (
            "devices: {lan: [[a]], wan: [c]}",
            "c.yaml:1:17: devices.lan[0]: expected a device name or glob, found a list",
        ),
        (
            "devices: {lan: [{drvier: x}], wan: [c]}",
            'c.yaml:1:18: devices.lan[0].drvier: unknown key (did you mean "driver"?)',
        ),
        (
            "devices: {lan: [{driver: }], wan: [c]}",
            "c.yaml:1:17: devices.lan[0]: nothing says which devices these are (give a driver, a feature, or both)",
        ),
        (
            "devices: {lan: [{driver: a b}], wan: [c]}",
            'c.yaml:1:26: devices.lan[0].driver: "a b" cannot be the name of a driver (`ethtool -i DEVICE` shows it)',
        ),
        (
            "devices: {lan: [{feature: ESP_HW}], wan: [c]}",
            'c.yaml:1:27: devices.lan[0].feature: "ESP_HW" cannot be the name of an ethtool feature '
            "(`ethtool -k DEVICE` shows them)",
        ),
        (
            "devices: {lan: [{driver: a}, {driver: a, name: }], wan: [c]}",
            "c.yaml:1:30: devices.lan[1]: {driver: a} is in the list already (keep one of them)",
        ),
        (
            "devices: {lan: [{driver: a}], wan: [{driver: a}]}",
            "c.yaml:1:37: devices.wan[0]: {driver: a} is in devices.lan too, as {driver: a} "
            "(a device faces one side: remove it from one)",
        ),
        ("devices: lan0", "c.yaml:1:10: devices: expected a mapping with the keys lan, wan, found text"),
        (
            "- lan0",
            "c.yaml:1:1: expected a mapping with the keys version, use, devices, tunnels, defaults, offload, exclude, "
            "bulk, nic_offload, notrack, accounting, steering, underlay_netns, exporter, loop, found a list",
        ),
    ],
)
def test_mistakes_about_devices(text: str, line: str) -> None:
    assert only(text) == line


@pytest.mark.parametrize(
    ("tunnel", "line"),
    [
        (
            "{local: [10.1.2.3/16], remote: [10.2.0.0/16]}",
            'c.yaml:2:23: tunnels.a.local[0]: "10.1.2.3/16" has bits set behind its prefix length '
            "(write 10.1.0.0/16, or one address as 10.1.2.3)",
        ),
        (
            "{local: [10.1.0/16], remote: [10.2.0.0/16]}",
            'c.yaml:2:23: tunnels.a.local[0]: "10.1.0/16" is not a prefix (such as 10.1.0.0/16 or fd00:1::/64)',
        ),
        (
            "{local: [10.1.0.0/16], remote: ['fd00::/64']}",
            "c.yaml:2:23: tunnels.a.local[0]: 10.1.0.0/16 has no remote prefix of its family "
            "(add an IPv4 prefix to remote)\n"
            "c.yaml:2:46: tunnels.a.remote[0]: fd00::/64 has no local prefix of its family "
            "(add an IPv6 prefix to local)",
        ),
        (
            "{local: [10.1.0.0/16]}",
            "c.yaml:2:11: tunnels.a.remote: missing, while local is given (a selector has two sides)",
        ),
        (
            "{offload: true}",
            "c.yaml:2:11: tunnels.a: nothing says which tunnel this is "
            "(give local and remote, or one of peer, reqid, if_id, interface)",
        ),
        (
            "{peer: 192.0.2.0/24}",
            'c.yaml:2:21: tunnels.a.peer: "192.0.2.0/24" is not an IPv4 or IPv6 address (leave out the prefix length)',
        ),
        (
            "{peer: 'fe80::1%wan0'}",
            'c.yaml:2:21: tunnels.a.peer: "fe80::1%wan0" names a zone, and an SA has none (write fe80::1)',
        ),
        (
            "{reqid: 0}",
            "c.yaml:2:22: tunnels.a.reqid: 0 is out of range, expected a reqid from 1 to 4294967295",
        ),
        (
            "{if_id: '42'}",
            "c.yaml:2:22: tunnels.a.if_id: expected an if_id, found text (write it without quotes)",
        ),
        (
            "{if_id: 042}",
            'c.yaml:2:22: tunnels.a.if_id: expected an if_id, found "042" '
            "(write it in plain decimal digits, or as 0x2a)",
        ),
        (
            "{interface: 'xfrm*'}",
            'c.yaml:2:26: tunnels.a.interface: "xfrm*" is a glob, expected the name of one device',
        ),
        (
            "{if_id: 1, offload: 1}",
            "c.yaml:2:34: tunnels.a.offload: expected true or false, found a number",
        ),
        (
            "{if_id: 1, if-id: 2}",
            'c.yaml:2:25: tunnels.a.if-id: unknown key (did you mean "if_id"?)',
        ),
        (
            "{if_id: 1, lan: 2}",
            "c.yaml:2:25: tunnels.a.lan: unknown key (did you mean devices.lan?)",
        ),
        (
            "{if_id: 1, zzz: 2}",
            "c.yaml:2:25: tunnels.a.zzz: unknown key "
            "(known here: local, remote, peer, reqid, if_id, interface, offload)",
        ),
    ],
)
def test_mistakes_about_a_tunnel(tunnel: str, line: str) -> None:
    assert "\n".join(lines(f"{DEVICES}tunnels: {{a: {tunnel}}}")) == line


@pytest.mark.parametrize(
    ("rest", "line"),
    [
        ("version: 2", "c.yaml:2:10: version: 2 is out of range, expected the version of this format from 1 to 1"),
        ("accounting: on", 'c.yaml:2:13: accounting: "on" is not a way of accounting (one of off, sa, precise)'),
        ("offload: {mode: gaurded}", 'c.yaml:2:17: offload.mode: "gaurded" is not an offload mode (one of guarded, '
         "outbound-only, off)"),
        ("offload: {protocols: [tcp, icmp]}",
         'c.yaml:2:28: offload.protocols[1]: "icmp" is not a protocol that a flowtable carries (one of tcp, udp)'),
        ("underlay_netns: ['../x']", 'c.yaml:2:18: underlay_netns[0]: "../x" cannot be the name of a network namespace '
         "(`ip netns list` shows the names)"),
        ("exporter: {listen: 9833}", 'c.yaml:2:20: exporter.listen: "9833" is not an address and port (the port is a '
         'number from 1 to 65535, as in "127.0.0.1:9833")'),
        ("exporter: {listen: 'localhost:9833'}", 'c.yaml:2:20: exporter.listen: "localhost" is not an address '
         "(names are not looked up: write 127.0.0.1 or [::1])"),
        ("exporter: {listen: ':9833'}", 'c.yaml:2:20: exporter.listen: ":9833" names no address '
         '(all of them are "0.0.0.0:9833" or "[::]:9833")'),
        ("exporter: {listen: '::1:9833'}", 'c.yaml:2:20: exporter.listen: "::1:9833" is not an address and port '
         '(write "[::1]:9833")'),
        ("exporter: {listen: '127.0.0.1:70000'}", 'c.yaml:2:20: exporter.listen: "127.0.0.1:70000" is not an address '
         'and port (the port is a number from 1 to 65535, as in "127.0.0.1:9833")'),
        ("exporter: {sa_limit: 0}",
         "c.yaml:2:22: exporter.sa_limit: 0 is out of range, expected a number of SAs from 1 to 100000"),
        ("exporter: {tls: {certfile: cert.pem, keyfile: /k.pem}}", 'c.yaml:2:28: exporter.tls.certfile: "cert.pem" is '
         "not the whole path of a file (begin with /, as in /etc/flowfast/tls.pem)"),
        ("exporter: {tls: {certfile: /c.pem, keyfile: /k.pem, min_version: 1.1}}",
         'c.yaml:2:66: exporter.tls.min_version: "1.1" is not a version of TLS (one of 1.2, 1.3)'),
        ("exporter: {tls: {certfile: /c.pem, keyfile: /k.pem, client_auth_required: true}}",
         "c.yaml:2:12: exporter.tls.client_cafile: missing, with client_auth_required (name the CA that signs your "
         "scrapers' certificates: any public one would let everybody in)"),
        ("loop: {debounce_ms: 1:30}", 'c.yaml:2:21: loop.debounce_ms: expected a number of milliseconds, found "1:30" '
         "(write it in plain decimal digits, or as 0x2a)"),
        ("loop: {debounce_ms: 200}",
         "c.yaml:2:21: loop.debounce_ms: 200 is out of range, expected a number of milliseconds from 0 to 50"),
        ("tunnels: [berlin]",
         "c.yaml:2:1: tunnels: expected a mapping of tunnel names to their settings, found a list"),
        ("tunnels: {'a b': {if_id: 1}}", 'c.yaml:2:11: tunnels["a b"]: "a b" cannot be the name of a tunnel (letters, '
         "digits, _ . and -, at most 63, a letter or digit first)"),
    ],
)  # fmt: skip
def test_mistakes_elsewhere(rest: str, line: str) -> None:
    assert below(rest) == line


@pytest.mark.parametrize(
    ("rest", "line"),
    [
        ("offload: {ports: [0]}", "c.yaml:2:19: offload.ports[0]: 0 is out of range, expected a port from 1 to 65535"),
        ("offload: {ports: [0443]}", 'c.yaml:2:19: offload.ports[0]: expected a port, found "0443" '
         "(write it in plain decimal digits, or as 0x2a)"),
        ("offload: {dscp: [64]}",
         "c.yaml:2:18: offload.dscp[0]: 64 is out of range, expected a DSCP value from 0 to 63"),
        ("offload: {ports: [1-70000]}", 'c.yaml:2:19: offload.ports[0]: "1-70000" is not a port or a range of ports '
         "(from 1 to 65535, such as 443 or 5000-5100)"),
        ("offload: {ports: [5100-5000]}", "c.yaml:2:19: offload.ports[0]: the range 5100-5000 ends before it begins "
         "(write 5000-5100)"),
        ("offload: {ports: 443}",
         "c.yaml:2:18: offload.ports: expected a list of ports, found a number (write [443])"),
        ("offload: {ports: [443, '443']}",
         "c.yaml:2:24: offload.ports[1]: 443 is in the list already (keep one of them)"),
        ("offload: {marks: [x]}", 'c.yaml:2:19: offload.marks[0]: "x" is not a packet mark '
         "(a number of 32 bits, or one with its mask as 0x10/0xff)"),
        ("offload: {marks: [0x100000000]}", 'c.yaml:2:19: offload.marks[0]: "0x100000000" is not a packet mark '
         "(a number of 32 bits, or one with its mask as 0x10/0xff)"),
        ("exclude: {marks: [0x110/0xff]}", "c.yaml:2:19: exclude.marks[0]: the mark 0x110/0xff matches no packet: "
         "it has bits outside of its mask (write 0x10/0xff)"),
        ("exclude: {marks: [0/0]}", "c.yaml:2:19: exclude.marks[0]: the mark 0/0 matches every packet "
         "(give a mask that is not 0, or leave the mark out)"),
        ("offload: {dscp: [af44]}", 'c.yaml:2:18: offload.dscp[0]: "af44" is not a DSCP value '
         "(a number from 0 to 63, or a name such as ef, af41, cs1)"),
        ("offload: {dscp: [ef, 46]}", "c.yaml:2:22: offload.dscp[1]: 46 is in the list already (keep one of them)"),
        ("offload: {zones: [65536]}",
         "c.yaml:2:19: offload.zones[0]: 65536 is out of range, expected a conntrack zone from 0 to 65535"),
        ("offload: {after_packets: -1}", "c.yaml:2:26: offload.after_packets: -1 is out of range, "
         "expected a number of packets from 0 to 4294967295"),
        ("offload: {plain: maybe}", "c.yaml:2:18: offload.plain: expected true or false, found text"),
        ("exclude: {addresses: [10.1.0.1/16]}", 'c.yaml:2:23: exclude.addresses[0]: "10.1.0.1/16" has bits set behind '
         "its prefix length (write 10.1.0.0/16, or one address as 10.1.0.1)"),
        ("exclude: {tunnels: ['a b']}", 'c.yaml:2:21: exclude.tunnels[0]: "a b" cannot be the name of a tunnel '
         "(`flowfast status` shows the names)"),
        ("exclude: {tunnels: {a: b}}",
         "c.yaml:2:11: exclude.tunnels: expected a list of names of tunnels, found a mapping"),
        ("exclude: {port: [1]}", 'c.yaml:2:11: exclude.port: unknown key (did you mean "ports"?)'),
        ("notrack: 1", "c.yaml:2:10: notrack: expected true or false, found a number"),
    ],
)  # fmt: skip
def test_mistakes_about_what_is_offloaded(rest: str, line: str) -> None:
    assert below(rest) == line


@pytest.mark.parametrize(
    ("rest", "line"),
    [
        ("loop: {}\nloop: {}", "c.yaml:3:1: loop: given twice, first in line 2 (keep one of them)"),
        ("tunnels:\n  a: {if_id: 1}\n  a: {if_id: 2}",
         "c.yaml:4:3: tunnels.a: given twice, first in line 3 (keep one of them)"),
        ("tunnels: {no: {if_id: 1}}",
         'c.yaml:2:11: tunnels: a key must be text, YAML reads no as a boolean (write "no")'),
        ("tunnels: {2026-01-01: {if_id: 1}}",
         'c.yaml:2:11: tunnels: a key must be text, YAML reads 2026-01-01 as a date (write "2026-01-01")'),
        ("tunnels: {[a]: {if_id: 1}}",
         "c.yaml:2:11: tunnels: a key must be text, found a list (write the key as a plain word)"),
        ("loop:\n\tverify: true", "c.yaml:3:1: not valid YAML: a tab in the indentation (use spaces)"),
        ("offload: {mode: guarded\n",
         "c.yaml:2:10: not valid YAML: what is opened here is not closed before the file ends"),
        ("---\nloop: {}", "c.yaml:2:1: a second document begins here (a config is one document: remove the ---)"),
        ("loop: !!python/object:x {}",
         'c.yaml:2:7: loop: YAML tags are not read here, found "tag:yaml.org,2002:python/object:x" (remove it)'),
        ("loop: *x", "c.yaml:2:7: loop: no anchor &x before this alias (define it above, or write the value out)"),
        ("tunnels: &t {a: *t}",
         "c.yaml:2:17: tunnels.a: the alias *t stands inside of what it repeats (write the value out)"),
        ("defaults: &d {}\nloop: {<<: *d}", "c.yaml:3:8: loop: merge keys (<<) are not read here (write the keys out)"),
        ("loop: " + "[" * 30,
         f"c.yaml:2:27: loop{'[0]' * 20}: nested deeper than 20 levels (no key of the config needs that)"),
        ("loop: {verify: true} \ufeff", "c.yaml:2:22: the character U+FEFF is not allowed in YAML (remove it)"),
        ("loop: \x1b[31m", "c.yaml:2:7: the character U+001B is not allowed in YAML (remove it)"),
    ],
)  # fmt: skip
def test_mistakes_in_the_yaml_itself(rest: str, line: str) -> None:
    assert below(rest) == line


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "---\n...\n"])
def test_an_empty_file_says_what_it_needs(text: str) -> None:
    assert only(text) == "c.yaml:1:1: is empty (it needs at least devices.lan and devices.wan)"


def test_an_unquoted_ipv6_prefix_that_yaml_cannot_read_gets_the_remedy() -> None:
    line = below("tunnels: {a: {local: [::/0], remote: [::/0]}}")
    assert line.startswith("c.yaml:2:23: not valid YAML: ")
    assert line.endswith('(put an address that begins with ":" in quotes, as "::/0")')


def test_an_alias_repeats_a_list_and_its_mistakes_are_placed() -> None:
    text = (
        DEVICES
        + "tunnels:\n  a: {local: &ours [10.1.0.0/16], remote: [10.2.0.0/16]}\n  b: {local: *ours, remote: [%s]}\n"
    )
    assert parse(text % "10.3.0.0/16", "c.yaml").config.tunnels["b"].local == (ip_network("10.1.0.0/16"),)
    assert only(text % "10.3.0.1/16").startswith("c.yaml:4:30: tunnels.b.remote[0]: ")


def test_an_alias_bomb_is_refused_in_no_time() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{after}: &{after} [{','.join([f'*{before}'] * 10)}]\n"
        for before, after in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "aliases counted as often as they are used" in only(bomb)


def test_a_deep_chain_of_aliases_is_refused() -> None:
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 5000))
    assert "nested deeper than 20 levels" in only(chain)


def test_all_mistakes_are_named_also_those_between_the_tunnels_that_are_right() -> None:
    found = lines(
        DEVICES + "tunnels:\n"
        "  wrong: {peer: x}\n"
        "  one: {local: [10.1.0.0/16], remote: [10.2.0.0/16]}\n"
        "  two: {local: [10.0.0.0/8], remote: [10.2.3.0/24]}\n"
        "loop: {verfy: 1}\n"
    )
    assert [line.split(" ")[1] for line in found] == ["tunnels.wrong.peer:", "tunnels.two:", "loop.verfy:"]


def test_two_tunnels_known_by_the_same_values() -> None:
    assert below("tunnels: {a: {if_id: 1}, b: {if_id: 1}}") == (
        'c.yaml:2:26: tunnels.b: is known by the same values as tunnel "a" '
        "(add what tells them apart, or make one of the two)"
    )


def test_too_many_prefixes_are_refused_before_they_cost_time() -> None:
    many = ", ".join(f"10.{n >> 8}.{n & 255}.0/24" for n in range(257))
    assert below(f"tunnels: {{a: {{local: [{many}], remote: [0.0.0.0/0]}}}}") == (
        "c.yaml:2:15: tunnels.a.local: 257 prefixes, at most 256 are read (use shorter prefixes)"
    )
