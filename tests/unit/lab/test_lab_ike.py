"""What is written for strongSwan, and what is read back from it."""

import pytest

from flowfast.lab.netns import LabError
from flowfast.lab.swanctl import Child, Connection, parse_raw, swanctl_conf

CONF = """\
connections {
    gw {
        version = 2
        local_addrs = 192.0.2.1
        remote_addrs = 192.0.2.2
        proposals = aes128gcm16-prfsha256-x25519,aes128gcm16-prfsha256-ecp256
        encap = no
        mobike = no
        rekey_time = 0s
        local {
            auth = psk
            id = 192.0.2.1
        }
        remote {
            auth = psk
            id = 192.0.2.2
        }
        children {
            net0 {
                local_ts = "10.1.0.0/16,fd00:1::/64"
                remote_ts = "10.2.0.0/16,fd00:2::/64"
                esp_proposals = aes128gcm16-esn
                mode = tunnel
                if_id_in = 42
                if_id_out = 42
                start_action = trap
                rekey_time = 3600s
                replay_window = 128
                per_cpu_sas = encap
            }
        }
    }
}
secrets {
    ike-lab {
        id-0 = 192.0.2.1
        id-1 = 192.0.2.2
        secret = "a secret: {}"
    }
}
"""


def test_the_text_of_swanctl_conf() -> None:
    child = Child(
        "net0",
        ("10.1.0.0/16", "fd00:1::/64"),
        ("10.2.0.0/16", "fd00:2::/64"),
        if_id=42,
        start_action="trap",
        per_cpu_sas="encap",
    )
    assert swanctl_conf((Connection("gw", "192.0.2.1", "192.0.2.2", (child,)),), "a secret: {}") == CONF


def test_options_that_older_versions_do_not_know_are_left_out_unless_wanted() -> None:
    text = swanctl_conf((Connection("gw", "::1", "::2", (Child("net0", ("::/0",), ("::/0",)),)),), "s")
    assert not any(name in text for name in ("per_cpu_sas", "hw_offload", "if_id", "reqid"))


RAW = (
    "list-sa event {gw {uniqueid=1 version=2 state=ESTABLISHED local-host=192.0.2.1 initiator=yes "
    "child-sas {net0-1 {name=net0 uniqueid=1 reqid=1 state=INSTALLED mode=TUNNEL protocol=ESP spi-in=c3ab5e91 "
    "spi-out=c87d7ad5 encr-alg=AES_GCM_16 if-id-in=0000002a cpu=1 bytes-in=376 local-ts=[10.1.0.0/16 fd00:1::/64] "
    "remote-ts=[]}}}}\nlist-sas reply {}\n"
)


def test_what_swanctl_prints_raw_becomes_dictionaries() -> None:
    (name, content), reply = parse_raw(RAW)
    assert (name, reply) == ("list-sa", ("list-sas", {}))
    child = content["gw"]["child-sas"]["net0-1"]
    assert (child["spi-in"], child["cpu"], child["if-id-in"]) == ("c3ab5e91", "1", "0000002a")
    assert (child["local-ts"], child["remote-ts"]) == (["10.1.0.0/16", "fd00:1::/64"], [])


@pytest.mark.parametrize("text", [RAW[:200], "list-sa event", "list-sa event gw"])
def test_what_is_no_message_is_an_error(text: str) -> None:
    with pytest.raises(LabError, match="swanctl printed"):
        parse_raw(text)
