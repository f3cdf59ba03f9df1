"""CPUs, queues and interrupts, from files as the kernel writes them; what ethtool prints."""

from pathlib import Path

import pytest

from flowfast.kernel.ethtool import parse_fields, parse_letters, parse_rss, parse_rules
from flowfast.kernel.machine import RealMachine, queue_irqs
from flowfast.model.cpu import Cpu
from flowfast.model.knob import Denial, Knob, KnobKind

INTERRUPTS = """\
            CPU0       CPU1
   0:         38          0  IO-APIC    2-edge      timer
  25:          0          0  PCI-MSIX-0000:00:04.0   0-edge      virtio3-config
  26:         17          0  PCI-MSIX-0000:00:04.0   1-edge      virtio3-input.0
  27:          3          0  PCI-MSIX-0000:00:04.0   2-edge      virtio3-output.0
  28:         11          0  PCI-MSIX-0000:00:04.0   3-edge      virtio3-input.1
  29:          3          0  PCI-MSIX-0000:00:04.0   4-edge      virtio3-output.1
 NMI:          0          0   Non-maskable interrupts
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    cpu = "sys/devices/system/cpu"
    files = {f"{cpu}/online": "0-2", f"{cpu}/present": "0-3", f"{cpu}/isolated": "2"}
    files |= {f"{cpu}/cpu{n}/topology/core_id": str(n // 2) for n in range(3)}
    files |= {f"{cpu}/cpu{n}/topology/physical_package_id": "0" for n in range(3)}
    files |= {"sys/devices/system/node/node1/cpulist": "2-3", "proc/interrupts": INTERRUPTS}
    files |= {"proc/irq/26/smp_affinity_list": "0-3", "proc/irq/28/smp_affinity_list": "1"}
    queues = "sys/devices/virtio3/net/eth0/queues"
    for queue in (0, 1):
        files |= {f"{queues}/rx-{queue}/rps_cpus": f"00000000,0000000{queue}", f"{queues}/tx-{queue}/xps_cpus": "3"}
    files |= {"sys/devices/virtio3/numa_node": "-1", "proc/77/comm": "irqbalance"}
    write(tmp_path, files)
    links = tmp_path / "sys/class/net"
    links.mkdir(parents=True)
    (links / "eth0").symlink_to(tmp_path / "sys/devices/virtio3/net/eth0")
    (tmp_path / "sys/devices/virtio3/net/eth0/device").symlink_to(tmp_path / "sys/devices/virtio3")
    return tmp_path


def test_cpus_queues_and_interrupts_are_read(root: Path) -> None:
    machine = RealMachine(root).look({"eth0": "virtio_net", "gone0": None}, frozenset({"esp4_offload"}))
    assert machine.cpus == (
        Cpu(0, core=0),
        Cpu(1, core=0),
        Cpu(2, core=1, node=1, isolated=True),
        Cpu(3, online=False, node=1),
    )
    assert machine.balancer
    assert machine.esp_gro
    (nic,) = machine.nics.values()
    assert [(q.number, q.irq, q.irq_cpus, q.rps, q.cpu) for q in nic.rx] == [
        (0, 26, frozenset({0, 1, 2, 3}), frozenset(), None),
        (1, 28, frozenset({1}), frozenset({0}), 1),
    ]
    assert nic.xps == (frozenset({0, 1}), frozenset({0, 1}))
    assert nic.native_xdp
    assert nic.node == 0
    assert nic.lower == ()


def test_what_a_device_is_made_of_is_read(root: Path) -> None:
    (root / "sys/class/net/eth0/lower_eth1").symlink_to(root)
    assert RealMachine(root).look({"eth0": "bonding"}, frozenset()).nics["eth0"].lower == ("eth1",)


@pytest.mark.parametrize(
    ("features", "unfinished"),
    [(None, True), ("1110000", True), ("1010000", False)],  # bit 1, from the left, is GUEST_CSUM
)
def test_virtio_net_says_whether_checksums_may_be_unfinished(
    root: Path, features: str | None, unfinished: bool
) -> None:
    if features is not None:
        write(root, {"sys/devices/virtio3/features": features})
    assert RealMachine(root).look({"eth0": "virtio_net"}, frozenset()).nics["eth0"].unfinished is unfinished
    assert RealMachine(root).look({"eth0": "veth"}, frozenset()).nics["eth0"].unfinished
    assert not RealMachine(root).look({"eth0": "e1000e"}, frozenset()).nics["eth0"].unfinished


def test_cpus_without_an_sa_are_known_to_every_process(root: Path) -> None:
    def known() -> frozenset[int]:
        return RealMachine(root).look({}, frozenset()).refused

    assert known() == frozenset()
    RealMachine(root).refuse(frozenset({2, 3}))
    assert known() == frozenset({2, 3})
    RealMachine(root).refuse(frozenset())
    assert known() == frozenset()
    assert not list(root.glob("run/flowfast/*"))


def test_what_the_kernel_refused_is_known_to_every_process_until_the_device_is_another(root: Path) -> None:
    index = root / "sys/class/net/eth0/ifindex"
    index.write_text("2\n")
    denied = {
        Knob(KnobKind.NTUPLE, "eth0", "3"): Denial("esp4 spi 0x1 action 2", "No space left on device"),
        Knob(KnobKind.IRQ, "26", "smp_affinity_list"): Denial("1", "Input/output error"),
    }
    RealMachine(root).deny(denied)

    def known() -> set[KnobKind]:
        found = RealMachine(root).look({}, frozenset()).denied
        assert all(denied[knob] == said for knob, said in found.items())
        return {knob.kind for knob in found}

    assert known() == {KnobKind.NTUPLE, KnobKind.IRQ}
    index.write_text("7\n")  # its driver was loaded anew
    assert known() == {KnobKind.IRQ}
    write(root, {"proc/interrupts": INTERRUPTS.replace("virtio3-input.0", "ahci")})
    assert known() == set()
    RealMachine(root).deny({})
    assert not list(root.glob("run/flowfast/*"))


@pytest.mark.parametrize(
    ("actions", "queues"),
    [
        ({1: "eth0-TxRx-0", 2: "eth0-TxRx-1", 3: "eth0"}, {0: 1, 1: 2}),
        ({1: "eth0-rx-0", 2: "eth0-tx-0", 3: "eth0-rx-1"}, {0: 1, 1: 3}),
        ({1: "mlx5_comp0@pci:0000:3b:00.0", 2: "mlx5_comp1@pci:0000:3b:00.0"}, {0: 1, 1: 2}),
        ({1: "i40e-eth0-TxRx-0", 2: "eth01-TxRx-0"}, {0: 1}),
    ],
)
def test_a_queue_is_known_by_the_name_of_its_interrupt(actions: dict[int, str], queues: dict[int, int]) -> None:
    own = {irq for irq, action in actions.items() if action.startswith(("mlx5", "i40e"))}
    assert queue_irqs(actions, own, {"eth0"}) == queues


RSS = """\
RX flow hash indirection table for eth0 with 4 RX ring(s):
    0:      0     1     2     3     0     1     2     3
    8:      3     3
RSS hash key:
6d:5a:56:da
RSS hash function:
    toeplitz: on
"""


def test_tables_and_keys_of_rss_are_read() -> None:
    assert parse_rss(RSS) == ((0, 1, 2, 3, 0, 1, 2, 3, 3, 3), bytes.fromhex("6d5a56da"))


def test_what_is_hashed_is_read() -> None:
    head = "UDP over IPV4 flows use these fields for computing Hash flow key:"
    shown = f"{head}\nIP SA\nIP DA\nL4 bytes 0 & 1 [TCP/UDP src port]\n"
    assert parse_fields(shown) == {"src", "dst", "sport"}
    assert parse_letters(shown) == "sdf"
    assert parse_fields(shown.replace("UDP", "IPSEC ESP")) == {"src", "dst", "sport", "spi"}


RULES = """\
4 RX rings available
Total 2 rules

Filter: 1
\tRule Type: IPSEC ESP over IPv4
\tSrc IP addr: 0.0.0.0 mask: 255.255.255.255
\tDest IP addr: 192.0.2.1 mask: 0.0.0.0
\tTOS: 0x0 mask: 0xff
\tSPI: -1061096959 mask: 0x0
\tAction: Direct to queue 2

Filter: 7
\tRule Type: TCP over IPv4
\tDest IP addr: 192.0.2.1 mask: 0.0.0.0
\tAction: Drop

"""


def test_ntuple_rules_are_read_as_they_are_written() -> None:
    assert dict(parse_rules(RULES)) == {1: "esp4 dst-ip 192.0.2.1 spi 0xc0c0f201 action 2", 7: "?"}
