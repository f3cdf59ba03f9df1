"""What is printed at the end."""

import io
from dataclasses import replace

from rich.console import Console

from flowfast.lab.demo import tables
from flowfast.lab.demo.result import Cost, EspWork, Result
from tests.unit.lab.demo.sample import part, result


def printed(whole: Result) -> list[str]:
    out = io.StringIO()
    tables.show(whole, Console(file=out, width=160, highlight=False))
    return out.getvalue().splitlines()


def line(lines: list[str], *words: str) -> list[str]:
    """The only line with all these words, cut into its own."""
    found = [each for each in lines if all(word in each for word in words)]
    assert len(found) == 1, found
    return found[0].split()


def test_a_line_for_each_load_and_each_sa() -> None:
    lines = printed(result())
    assert line(lines, "berlin", "LAN to tunnel", "TCP")[-8:] == [
        *("10,000,000", "100.0", "200.0", "2.00x", "100.00%", "10,000", ">", "5"),
    ]
    assert line(lines, "0xc0000001")[-8:] == ["22,000,000", "100.0", "200.0", "2.00x", "100.00%", "11,000", ">", "5"]


def test_costs_and_what_was_on_the_wire() -> None:
    lines = printed(result())
    assert line(lines, "policy-based", "tunnel to LAN")[-3:] == ["15,000", "10,000", "1.50x"]
    assert line(lines, "switch-over and flowtable")[-5:] == ["22,020", "22,000", "20", "0", "0"]


def test_who_did_esp_is_told_where_a_nic_could() -> None:
    assert "Who did ESP" not in "\n".join(printed(result()))
    work = (EspWork("oslo", "tx", 0xC1, True, "wan0", 1500, 0), EspWork("rome", "tx", 0xC2, False, None, 1200, 1200))
    lines = printed(result(part(esp=work)))
    assert line(lines, "oslo", "0x000000c1")[-4:] == ["wan0", "1,500", "1,500", "0"]
    assert line(lines, "rome", "0x000000c2")[-5:] == ["the", "CPU", "1,200", "0", "1,200"]


def test_one_sentence_says_what_limits_it() -> None:
    assert "One emulated CPU does the work of both hosts, both gateways and iperf3" in " ".join(printed(result()))


def test_unknown_is_a_dash() -> None:
    windows = tuple(replace(each, bits_per_second=None) for each in part().windows)
    lines = printed(result(part(costs=(Cost("policy-based", None, 10_000.0, None, None),), windows=windows)))
    assert line(lines, "policy-based", "LAN to tunnel")[-3:] == ["-", "10,000", "-"]
    assert line(lines, "0xc0000001")[-7:-4] == ["-", "-", "-"]


def test_the_kill_is_told_of_if_there_was_traffic_since() -> None:
    after = replace(part().windows[-1], load="TCP, controllers killed", start=19.5)
    told = printed(result(part(windows=(*part().windows, after))))
    assert "After kill -9 of the controllers: 99.95% of the bytes on the fast path, 200.0 Mbit/s." in told
