"""What the tests of explain, show and top share."""

from pathlib import Path

import pytest

from flowfast.kernel.fake import FakeKernel
from tests.unit.cli.looking import Flowfast, commands, fake_kernel


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    monkeypatch.delenv("FLOWFAST_CONFIG", raising=False)
    return fake_kernel()


@pytest.fixture
def look(router: FakeKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Flowfast:
    return commands(router, monkeypatch, tmp_path)


@pytest.fixture
def site(tmp_path: Path) -> str:
    path = tmp_path / "site.yaml"
    path.write_text(
        "devices: {lan: [lan0], wan: [wan0]}\ntunnels: {berlin: {local: [10.1.0.0/16], remote: [10.2.0.0/16]}}\n"
    )
    return str(path)
