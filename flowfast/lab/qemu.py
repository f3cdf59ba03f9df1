"""QEMU's command line for one boot. Pure: every path and file descriptor is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# What makes a virtio NIC a plain wire: measured.md, "veth is not a wire".
OFFLOADS_OFF = ",".join(
    f"{name}=off"
    for name in (
        *("csum", "gso", "guest_csum", "guest_tso4", "guest_tso6", "guest_ufo", "guest_ecn"),
        *("host_tso4", "host_tso6", "host_ufo", "host_ecn"),
    )
)

KERNEL_ARGUMENTS = (
    "console=ttyS0",
    "quiet",
    "panic=-1",  # with -no-reboot a panic ends QEMU at once
    "oops=panic",  # a guest that went on after an oops would lie
    "mitigations=off",
    "net.ifnames=0",
    "cryptomgr.notests",  # testing every algorithm as it is registered takes a second
)


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of a guest. `memory` in MiB; `nics` are pairs; `ports` maps a virtio-serial port's name to a socket.

    `shares` maps a 9p mount tag to (folder of the host, writable). `taps`: descriptors of the queues of each end of a
    pair (flowfast.lab.taps), for NICs with several queues; without it, QEMU's hub joins the ends.
    """

    kernel: Path
    initrd: Path
    root: Path
    memory: int = 2048
    cpus: int = 1
    nics: int = 0
    nic_model: str = "virtio-net-pci"
    taps: Mapping[tuple[int, int], Sequence[int]] | None = None
    icount: bool = False
    console: int = -1
    ports: Mapping[str, int] | None = None
    shares: Mapping[str, tuple[Path, bool]] | None = None
    terminal: bool = False


def mac(pair: int, end: int) -> str:
    """The MAC address of one end (1 or 2) of an emulated pair of NICs: how the guest tells them apart."""
    return f"52:54:00:00:{pair:02x}:{end:02x}"


def _quoted(path: Path) -> str:
    return str(path).replace(",", ",,")


def command(boot: Boot) -> list[str]:
    """The arguments to start `boot` with. Only ever -accel tcg,thread=single: measured.md, "/dev/kvm"."""
    argv = [
        "qemu-system-x86_64",
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35", "-accel", "tcg,thread=single,tb-size=512", "-cpu", "max"),
        *("-m", str(boot.memory), "-smp", str(boot.cpus)),
        *("-kernel", str(boot.kernel), "-initrd", str(boot.initrd), "-append", " ".join(KERNEL_ARGUMENTS)),
        *("-drive", f"if=none,id=root,file={_quoted(boot.root)},format=raw,readonly=on,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-chardev", f"socket,id=console,fd={boot.console}", "-serial", "chardev:console"),
        *("-device", "virtio-serial-pci"),
    ]
    if boot.icount:
        # One instruction is one virtual nanosecond (measured.md, "Cost of a packet").
        argv += ["-icount", "shift=0,sleep=off"]
    for name, fd in (boot.ports or {}).items():
        argv += ["-chardev", f"socket,id={name},fd={fd}", "-device", f"virtserialport,chardev={name},name={name}"]
    if boot.terminal:
        argv += ["-chardev", "stdio,id=terminal,signal=off", "-device", "virtconsole,chardev=terminal"]
    for tag, (folder, writable) in (boot.shares or {}).items():
        argv += [
            *("-fsdev", f"local,id={tag},path={_quoted(folder)},security_model=none,multidevs=remap"),
            *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
        ]
        if not writable:
            argv[-3] += ",readonly=on"
    for pair in range(boot.nics):
        for end in (1, 2):
            options = f",{OFFLOADS_OFF}" if boot.nic_model == "virtio-net-pci" else ""
            if boot.taps is None:
                argv += ["-netdev", f"hubport,id=n{pair}.{end},hubid={pair}"]
            else:
                fds = boot.taps[pair, end]
                argv += ["-netdev", f"tap,id=n{pair}.{end},vhost=off,fds={':'.join(map(str, fds))}"]
                options += f",mq=on,rss=on,vectors={2 * len(fds) + 2}"  # two a queue, control, configuration
            argv += ["-device", f"{boot.nic_model},netdev=n{pair}.{end},mac={mac(pair, end)}{options}"]
    return argv
