"""The machine, with a stand-in for QEMU: what comes out of a guest, and every way in which one may end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowfast.lab import image as images
from flowfast.lab import qemu
from flowfast.lab.guest_init import exec_script
from flowfast.lab.machine import GuestError, Machine
from flowfast.lab.recipe import RECIPES
from flowfast.model.errors import UsageError

STAND_IN = """\
#!{python}
import re, socket, sys, time, os
ports = {{}}
for argument in sys.argv:
    if found := re.match(r"socket,id=(\\w+),fd=(\\d+)", argument):
        ports[found[1]] = socket.socket(fileno=int(found[2]))
say = lambda port, data: ports[port].sendall(data)
open({pids!r}, "a").write(f"{{os.getpid()}}\\n")
boots = len(open({pids!r}).readlines())
{body}
"""

Boot = Callable[..., Machine]


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    """A function that makes a Machine whose QEMU is a Python script with the given body."""
    folder = tmp_path / "image"
    folder.mkdir()
    for name in ("initrd", "vmlinux", "root.img"):
        (folder / name).write_bytes(b"")
    monkeypatch.setattr(images, "ensure", lambda recipe, _progress: images.Image(recipe, folder, "7.0"))
    monkeypatch.setenv("FLOWFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def make(body: str, **options: object) -> Machine:
        program = tmp_path / "qemu-system-x86_64"
        program.write_text(STAND_IN.format(python=sys.executable, body=body, pids=str(tmp_path / "pids")))
        program.chmod(0o755)
        return Machine(**options)  # type: ignore[arg-type]

    return make


def pids(tmp_path: Path) -> list[int]:
    return [int(line) for line in (tmp_path / "pids").read_text().split()]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_output_is_passed_on_as_it_is_and_the_exit_code_with_it(boot: Boot, tmp_path: Path) -> None:
    machine = boot(
        'say("console", b"\\r\\nhello\\r\\n"); say("control", b"started\\n"); say("stdout", b"a\\r\\n\\x00b")\n'
        'say("stderr", b"oh"); time.sleep(0.2); say("control", b"exit 7\\n"); time.sleep(60)'
    )
    came: list[bytes] = []
    result = machine.run(["true"], stdout=came.append)
    assert (result.exit_code, result.stdout, result.stderr) == (7, b"a\r\n\0b", b"oh")
    assert b"".join(came) == b"a\r\n\0b"
    assert result.console == "\nhello\n"
    assert 0 < result.boot < result.seconds < 30
    # It does not wait for the guest to power off.
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_a_panic_is_told_at_once_with_what_came_before_it(boot: Boot) -> None:
    machine = boot(
        'say("control", b"started\\n"); say("console", b"[ 1.0] skbuff: skb_under_panic: text\\r\\n")\n'
        'say("console", b"[ 1.1] Kernel panic - not syncing: Fatal exception in interrupt\\r\\n")\n'
        'say("console", b"[ 1.2] trace\\n" * 50)'
    )
    with pytest.raises(GuestError) as caught:
        machine.run(["true"])
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("debian14: Kernel panic - not syncing: Fatal exception in interrupt")
    assert any("skb_under_panic" in line for line in rest)


def test_a_hung_guest_is_killed_at_the_time_limit(boot: Boot, tmp_path: Path) -> None:
    machine = boot('say("control", b"started\\n"); say("console", b"the last words\\n"); time.sleep(60)', timeout=1)
    start = time.monotonic()
    with pytest.raises(GuestError, match=r"killed at its time limit of 1 s") as caught:
        machine.run(["true"])
    assert time.monotonic() - start < 10
    assert "the last words" in str(caught.value)
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_a_boot_that_oopses_before_the_command_is_tried_once_more(boot: Boot, tmp_path: Path) -> None:
    oops = 'say("console", b"Kernel panic - not syncing: Fatal exception\\n")'
    machine = boot(f'if boots == 1: {oops}; sys.exit()\nsay("control", b"started\\nexit 0\\n"); time.sleep(60)')
    assert machine.run(["true"]).exit_code == 0
    assert len(pids(tmp_path)) == 2


def test_a_guest_that_dies_in_its_command_is_not_tried_again(boot: Boot, tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="QEMU ended after"):
        boot('say("control", b"started\\n")').run(["true"])
    assert len(pids(tmp_path)) == 1


def test_what_qemu_complains_of_is_in_the_error(boot: Boot) -> None:
    with pytest.raises(GuestError, match="no such device"):
        boot('sys.stderr.write("qemu: no such device\\n")').run(["true"])


def test_qemu_dies_with_the_process_that_started_it(boot: Boot, tmp_path: Path) -> None:
    boot("time.sleep(60)")
    code = (
        "from pathlib import Path; from flowfast.lab import image; from flowfast.lab.machine import Machine\n"
        f"image.ensure = lambda recipe, progress: image.Image(recipe, Path({str(tmp_path / 'image')!r}), '7.0')\n"
        "Machine().run(['true'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 20
    while not (tmp_path / "pids").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while alive(pids(tmp_path)[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pids(tmp_path)[0])


def test_a_share_that_is_not_there_is_refused(boot: Boot, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such folder"):
        boot("", share=tmp_path / "nowhere").run(["true"])


def command(**options: object) -> list[str]:
    return qemu.command(qemu.Boot(kernel=Path("k"), initrd=Path("i"), root=Path("r"), **options))  # type: ignore[arg-type]


def test_every_boot_is_emulated_on_one_thread() -> None:
    for options in ({}, {"cpus": 4}, {"icount": True}):
        argv = command(**options)
        assert argv[argv.index("-accel") + 1].startswith("tcg,thread=single")
        assert not any("kvm" in argument for argument in argv)
    assert argv[argv.index("-icount") + 1] == "shift=0,sleep=off"


def test_nics_come_in_pairs_on_a_hub_of_their_own_without_offloads() -> None:
    argv = command(nics=2)
    hubs = [argument for argument in argv if argument.startswith("hubport")]
    assert hubs == [
        "hubport,id=n0.1,hubid=0",
        "hubport,id=n0.2,hubid=0",
        "hubport,id=n1.1,hubid=1",
        "hubport,id=n1.2,hubid=1",
    ]
    devices = [argument for argument in argv if argument.startswith("virtio-net-pci")]
    assert ["mac=52:54:00:00:00:01" in devices[0], "mac=52:54:00:00:01:02" in devices[3]] == [True, True]
    for offload in ("csum", "gso", "guest_csum", "guest_tso4", "host_tso6", "host_ecn"):
        assert all(f",{offload}=off" in device for device in devices)
    assert all(
        "off" not in argument for argument in command(nics=1, nic_model="e1000e") if argument.startswith("e1000e")
    )


def test_nics_with_several_queues_are_taps() -> None:
    argv = command(nics=1, taps={(0, 1): [7, 8], (0, 2): [9, 10]})
    assert [argument for argument in argv if "id=n0" in argument] == [
        "tap,id=n0.1,vhost=off,fds=7:8",
        "tap,id=n0.2,vhost=off,fds=9:10",
    ]
    assert all("mq=on,rss=on,vectors=6" in each for each in argv if each.startswith("virtio-net-pci"))


def test_only_writable_shares_can_be_written() -> None:
    argv = command(shares={"src": (Path("/a,b"), False), "share": (Path("/c"), True)})
    shares = {argument.split(",")[1]: argument for argument in argv if argument.startswith("local,")}
    assert shares["id=src"].endswith("readonly=on")
    assert "path=/a,,b" in shares["id=src"]
    assert "readonly" not in shares["id=share"]


def test_the_command_reaches_the_guest_word_for_word() -> None:
    script = exec_script(["sh", "-c", "echo \"$HOME\" 'x'; exit 3"])
    assert """/usr/bin/env -- sh -c 'echo "$HOME" '"'"'x'"'"'; exit 3' < /dev/null""" in script


@pytest.mark.parametrize("name", list(RECIPES))
def test_an_image_that_is_not_there_is_not_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWFAST_CACHE", str(tmp_path))
    assert images.find(RECIPES[name]) is None
