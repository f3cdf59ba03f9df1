"""A guest's kernel: Debian's packages unpacked (never installed), the modules that a lab can use, the first root."""

import lzma
import shutil
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from flowfast.lab.apt import Apt, newest_kernel
from flowfast.lab.cpio import Entry, archive
from flowfast.lab.steps import Steps

KEEP = (
    "arch",
    "crypto",
    "drivers/block/virtio_blk",
    "drivers/char/hw_random/virtio-rng",
    "drivers/net/bonding",
    "drivers/net/dummy",
    "drivers/net/ethernet/intel",
    "drivers/net/geneve",
    "drivers/net/ifb",
    "drivers/net/macsec",
    "drivers/net/macvlan",
    "drivers/net/netdevsim",
    "drivers/net/nlmon",
    "drivers/net/tap",
    "drivers/net/team",
    "drivers/net/tun",
    "drivers/net/veth",
    "drivers/net/virtio_net",
    "drivers/net/vmxnet3",
    "drivers/net/vrf",
    "drivers/net/vxlan",
    "drivers/net/wireguard",
    "drivers/virtio",
    "fs/9p",
    "fs/ext4",
    "fs/overlayfs",
    "kernel",
    "lib",
    "net/802",
    "net/8021q",
    "net/9p",
    "net/bridge",
    "net/core",
    "net/ipv4",
    "net/ipv6",
    "net/key",
    "net/llc",
    "net/netfilter",
    "net/packet",
    "net/sched",
    "net/unix",
    "net/xfrm",
)
"""Folders and modules (below kernel/) that are kept, with what they depend on: a tenth of Debian's 4000 modules."""

FIRST = (
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "crc32c_generic",  # ext4 asks for it by name, as it would of modprobe, before 6.14
    "ext4",
    "overlay",
    "9p",
    "9pnet_virtio",
)
"""Modules that the first root loads to reach the real one and the host's folders, where they are not built in."""


class Kernel:
    """The files of one kernel below `root` (which holds usr/lib/modules/VERSION)."""

    def __init__(self, root: Path, version: str) -> None:
        self.root = root
        self.version = version
        self.modules = root / "usr/lib/modules" / version

    @property
    def image(self) -> Path:
        """The bzImage, wherever the packages of this version put it."""
        new = self.modules / "vmlinuz"
        return new if new.is_file() else self.root / "boot" / f"vmlinuz-{self.version}"

    def dependencies(self) -> dict[str, list[str]]:
        """modules.dep: path of a module below `modules` -> what it needs, innermost last."""
        lines = (line.split(":") for line in (self.modules / "modules.dep").read_text().splitlines())
        return {path: needs.split() for path, needs in lines}


def fetch(apt: Apt, folder: Path, steps: Steps) -> Kernel:
    """Downloads the suite's newest kernel and unpacks it below `folder`."""
    names = apt.names("linux-")
    version = newest_kernel(names)
    if version is None:
        raise steps.failure(f"{apt.suite} has no linux-image-*-amd64")
    # Since 6.17 the image is empty, and its files are in linux-binary-, linux-modules- and linux-base-.
    wanted = {f"linux-{part}-{version}" for part in ("image", "binary", "modules", "base")} & set(names)
    steps.say(f"fetching kernel {version}")
    for deb in apt.download(sorted(wanted), folder / "debs"):
        steps.run(["dpkg", "-x", str(deb), str(folder)])
    usr = folder / "usr/lib/modules"
    if not usr.is_dir():  # Debian 12 ships /lib/modules
        usr.parent.mkdir(parents=True, exist_ok=True)
        (folder / "lib/modules").rename(usr)
    lib = folder / "lib"
    if not lib.is_symlink():
        shutil.rmtree(lib, ignore_errors=True)
        lib.symlink_to("usr/lib")
    steps.run(["depmod", "-b", str(folder), version])
    return Kernel(folder, version)


def _stem(path: str) -> str:
    """ "kernel/net/xfrm/xfrm_user.ko.xz" -> "net/xfrm/xfrm_user"."""
    return path.removeprefix("kernel/").split(".ko")[0]


def selection(dependencies: Mapping[str, list[str]], keep: Iterable[str] = KEEP) -> list[str]:
    """Those modules of modules.dep that are in `keep`, and what they need."""
    folders = tuple(keep)
    chosen: set[str] = set()
    for path, needs in dependencies.items():
        stem = _stem(path)
        if any(stem == folder or stem.startswith(folder + "/") for folder in folders):
            chosen.update([path, *needs])
    return sorted(chosen)


def load_order(dependencies: Mapping[str, list[str]], names: Iterable[str] = FIRST) -> list[str]:
    """Paths of the modules called `names` and what they need, in an order in which each can be loaded."""
    by_name = {_stem(path).rsplit("/", 1)[-1].replace("-", "_"): path for path in dependencies}
    order: dict[str, None] = {}
    for name in names:
        if path := by_name.get(name):
            for module in [*reversed(dependencies[path]), path]:
                order.setdefault(module)
    return list(order)


def _unpacked(module: Path) -> bytes:
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data


def install_modules(kernel: Kernel, rootfs: Path, extra: Iterable[Path], steps: Steps) -> None:
    """Puts the selected modules, and the `extra` .ko files, into `rootfs`: uncompressed, which loads fastest."""
    target = rootfs / "usr/lib/modules" / kernel.version
    for path in selection(kernel.dependencies()):
        unpacked = target / path.removesuffix(".xz")
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        unpacked.write_bytes(_unpacked(kernel.modules / path))
    for module in extra:
        (target / "updates").mkdir(exist_ok=True)
        shutil.copyfile(module, target / "updates" / module.name)
    for index in kernel.modules.glob("modules.*"):
        if index.name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            shutil.copyfile(index, target / index.name)
    steps.run(["depmod", "-b", str(rootfs), kernel.version])


def first_root(kernel: Kernel, busybox: Path) -> bytes:
    """The image's part of the initrd: busybox and numbered modules. The init script is the machine's."""
    entries = [Entry(name) for name in ("bin", "dev", "lower", "modules", "proc", "root", "sys", "upper")]
    entries.append(Entry("bin/busybox", busybox.read_bytes(), executable=True))
    for number, path in enumerate(load_order(kernel.dependencies())):
        name = path.rsplit("/", 1)[-1].removesuffix(".xz")
        entries.append(Entry(f"modules/{number:02}-{name}", _unpacked(kernel.modules / path)))
    return archive(entries)


def is_dynamic(program: bytes) -> bool:
    """Whether an x86-64 ELF program asks for an interpreter, that is, for shared libraries (PT_INTERP, elf(5))."""
    offset, size, count = struct.unpack_from("<Q14xHH", program, 32)
    types = (struct.unpack_from("<I", program, offset + number * size)[0] for number in range(count))
    return 3 in types


def boot_image(kernel: Kernel, steps: Steps) -> bytes:
    """The kernel as QEMU boots it soonest: the ELF image inside the bzImage, else the bzImage itself.

    Unpacking itself takes a kernel over a second under emulation; its ELF image starts at once through PVH
    (Documentation/arch/x86/boot.rst: payload_offset, payload_length).
    """
    image = kernel.image.read_bytes()
    if image[0x202:0x206] != b"HdrS":
        raise steps.failure(f"{kernel.image} is not a bzImage")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    # Compressed data, then four bytes with its full size.
    payload = image[start : start + length - 4]
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        packed = kernel.root / "vmlinux.zst"
        packed.write_bytes(payload)
        steps.run(["zstd", "-q", "-d", "--rm", str(packed)])
        return packed.with_suffix("").read_bytes()
    return image
