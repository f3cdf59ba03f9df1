"""The report: complete, self-contained, and safe to open."""

import html
import re
from dataclasses import replace

import pytest

from flowfast import page
from flowfast.lab.demo import report
from flowfast.lab.demo.result import Cost, EspWork
from flowfast.model.errors import Unavailable
from tests.unit.lab.demo.sample import SPIS, part, result

PAGE = report.render(result())


def test_needs_nothing_but_itself() -> None:
    assert not re.search(r"<(link|script|img|iframe|object|embed|base)\b", PAGE)
    assert not re.search(r"<[^>]*\s(src|srcset|action|formaction|poster)\s*=", PAGE)
    assert not re.search(r"@import|url\((?!#)", PAGE)
    # SVG's names of namespaces are no addresses: nothing fetches them.
    assert set(re.findall(r'https?://[^\s"<]+', PAGE)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r'xlink:href="(?!#)', PAGE)


def test_says_what_was_measured() -> None:
    text = re.sub(r"<[^>]+>", " ", PAGE)
    for said in ("All as it should be", "berlin", "7.2.12", "debian14", "2.00x", "nftables", "99.9", "[OFFLOAD]"):
        assert said in text
    for spi in SPIS.values():
        assert f"0x{spi:08x}" in text


def test_who_did_esp_is_said_where_a_nic_could() -> None:
    assert "Who did ESP" not in PAGE
    work = (EspWork("oslo", "tx", 0xC1, True, "wan0", 1500, 0),)
    text = re.sub(r"<[^>]+>", " ", report.render(result(part(esp=work))))
    assert re.search(r"oslo\s+LAN to tunnel\s+0x000000c1\s+wan0\s+1,500\s+1,500\s+0\b", text)


def test_what_the_guest_said_is_text_and_not_html() -> None:
    assert "<script>" not in PAGE
    assert html.escape('comment "<script>"') in PAGE.replace("&#34;", "&quot;")


def test_a_failed_demo_says_so_first() -> None:
    page = report.render(result(failures=("xfrm interface: the guest hung",)))
    assert (
        page.index("The demo failed") < page.index("xfrm interface: the guest hung") < page.index("What a packet costs")
    )
    assert "All as it should be" not in page


def test_what_is_unknown_is_a_dash_and_no_zero() -> None:
    windows = tuple(replace(each, bits_per_second=None) for each in part().windows)
    page = report.render(result(part(windows=windows, costs=(Cost("policy-based"),), samples=part().samples[:2])))
    assert "<td>-</td>" in page
    assert "None" not in page
    assert "0.00x" not in page


def test_headlines_are_only_of_what_is_known() -> None:
    assert report.headlines(result())[0].figure == "1.73x"  # of 2.0 and 1.5
    figures = [each.figure for each in report.headlines(result(part(costs=(Cost("policy-based"),))))]
    assert "1.73x" not in figures


def test_without_its_libraries_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == "matplotlib" else object())
    with pytest.raises(Unavailable, match=r"^the report needs matplotlib: pip install 'flowfast\[report\]'"):
        report.render(result())
