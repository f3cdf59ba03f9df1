"""What IKE daemons are set to, from their own files: includes, references, defaults; no secret is kept."""

import socket
import struct
import threading
from pathlib import Path

import pytest

from flowfast.ike.find import find_daemons
from flowfast.ike.libreswan import libreswan
from flowfast.ike.settings import BadSettings, parse
from flowfast.ike.strongswan import strongswan
from flowfast.ike.vici import Answer, ask

SWANCTL = """
connections {
  site : defaults {
    if_id_in = 42
    if_id_out = 42
    children {
      net : child-defaults { local_ts = 10.1.0.0/16,fd00:1::/64
        replay_window = 128 }  # behind a brace on the line of a value
      legacy { mode = transport
        copy_df = no
      }
    }
  }
  include conf.d/*.conf
}
child-defaults { hw_offload = auto }
secrets {
  ike-1 {
    id = 192.0.2.1
    secret = "hunter2 } {"
    mode = hunter2
  }
}
"""


def files(root: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def nobody(_: Path) -> Answer | None:
    return None


def test_strongswans_options_with_includes_references_and_defaults(tmp_path: Path) -> None:
    files(
        tmp_path,
        {
            "etc/strongswan.conf": "charon {\n install_routes = no\n plugins { include strongswan.d/charon/*.conf\n }\n"
            '}\ncharon-systemd { delete_rekeyed_delay = "1" }\n',
            "etc/strongswan.d/charon/kernel-netlink.conf": "kernel-netlink {\n mtu = 1400\n}\n",
            "etc/swanctl/swanctl.conf": SWANCTL,
            "etc/swanctl/conf.d/more.conf": "other { children { all { start_action = trap\n per_cpu_sas = yes } } }\n",
        },
    )
    found = strongswan("charon-systemd", tmp_path, {}, nobody)
    assert found.unread == ()
    assert found.options["charon.install_routes"] == "no"
    assert found.options["charon.delete_rekeyed_delay"] == "1"
    assert found.options["charon.plugins.kernel-netlink.mtu"] == "1400"
    assert found.options["charon.plugins.kernel-netlink.parallel_xfrm"] == "no"
    by_name = {str(child): child.options for child in found.children}
    assert set(by_name) == {"site.net", "site.legacy", "other.all"}
    assert (by_name["site.net"]["hw_offload"], by_name["site.net"]["replay_window"]) == ("auto", "128")
    assert (by_name["site.net"]["if_id_in"], by_name["site.legacy"]["if_id_out"]) == ("42", "42")
    assert (by_name["site.legacy"]["mode"], by_name["site.legacy"]["copy_df"]) == ("transport", "no")
    assert by_name["other.all"]["per_cpu_sas"] == "yes"
    assert "hunter2" not in repr(found)


def test_the_environment_says_where_the_files_are_and_what_is_missing_is_said(tmp_path: Path) -> None:
    environment = {"STRONGSWAN_CONF": "/run/a/strongswan.conf", "SWANCTL_DIR": "/run/a"}
    files(tmp_path, {"run/a/strongswan.conf": "charon { plugins { vici { socket = unix:///run/a/vici } } }"})
    asked: list[Path] = []
    found = strongswan("charon", tmp_path, environment, asked.append)
    assert asked == [tmp_path / "run/a/vici"]
    assert found.source == "/run/a/strongswan.conf"
    assert found.unread == ("/run/a/swanctl.conf: No such file or directory",)


@pytest.mark.parametrize("text", ["a {", "}", "a {\n b = 1\n}}\n", "= 3\n"])
def test_what_is_no_settings_file_is_refused_by_line(text: str) -> None:
    with pytest.raises(BadSettings, match=r"line \d|has no end"):
        parse(text, {"b"}, lambda _pattern: iter(()))


def test_libreswans_options_in_strongswans_words(tmp_path: Path) -> None:
    files(
        tmp_path,
        {
            "etc/ipsec.conf": "config setup\n\tlogfile=/var/log/pluto\nconn %default\n\treplay-window=32\n"
            "include /etc/ipsec.d/*.conf\n",
            "etc/ipsec.d/site.conf": "conn common\n\tnic-offload=packet\n\n"
            "conn site\n\talso=common\n\ttype=tunnel # as it should be\n",
        },
    )
    found = libreswan(tmp_path)
    (site,) = [child for child in found.children if child.name == "site"]
    assert site.options == {"replay_window": "32", "hw_offload": "packet", "mode": "tunnel"}


def test_the_vici_socket_is_asked_for_version_and_connections(tmp_path: Path) -> None:
    def element(kind: int, key: str, value: str) -> bytes:
        name = bytes((len(key),)) + key.encode() if kind == 3 else b""
        return bytes((kind,)) + name + struct.pack("!H", len(value)) + value.encode()

    answers = [
        b"\x01" + element(3, "daemon", "charon-systemd") + element(3, "version", "6.1.0"),
        b"\x01" + b"\x04\x05conns" + element(5, "", "site") + element(5, "", "other") + b"\x06",
    ]
    path = tmp_path / "vici"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            link, _ = listener.accept()
            with link:
                for answer in answers:
                    link.recv(100)
                    link.sendall(struct.pack("!I", len(answer)) + answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert ask(path) == Answer("6.1.0", frozenset({"site", "other"}))
        thread.join()
    assert ask(tmp_path / "nobody") is None


def test_only_daemons_of_the_network_namespaces_that_are_meant(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "self/ns").mkdir(parents=True)
    (proc / "self/ns/net").write_text("")
    for number, name, ours in (("10", "charon-systemd", True), ("11", "pluto", False), ("12", "bash", True)):
        (proc / number / "ns").mkdir(parents=True)
        (proc / number / "comm").write_text(f"{name}\n")
        (proc / number / "environ").write_bytes(b"SECRET=x\0STRONGSWAN_CONF=/run/s.conf\0")
        if ours:
            (proc / number / "ns/net").hardlink_to(proc / "self/ns/net")
        else:
            (proc / number / "ns/net").write_text("")
    (found,) = find_daemons(proc=proc)
    assert (found.name, found.source) == ("strongSwan", "/run/s.conf")
