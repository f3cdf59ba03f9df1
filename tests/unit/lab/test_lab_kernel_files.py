"""Which modules go into an image, in which order the first root loads them, and the archive that it is."""

import lzma
import struct
import subprocess
from pathlib import Path

import pytest

from flowfast.lab.cpio import Entry, archive
from flowfast.lab.kernel_files import Kernel, boot_image, load_order, selection
from flowfast.lab.steps import BuildError, Steps

DEPENDENCIES = {
    "kernel/fs/ext4/ext4.ko.xz": ["kernel/fs/mbcache.ko.xz", "kernel/fs/jbd2/jbd2.ko.xz", "kernel/lib/crc/crc16.ko.xz"],
    "kernel/fs/mbcache.ko.xz": [],
    "kernel/fs/jbd2/jbd2.ko.xz": [],
    "kernel/lib/crc/crc16.ko.xz": [],
    "kernel/net/9p/9pnet.ko.xz": ["kernel/fs/netfs/netfs.ko.xz"],
    "kernel/net/9p/9pnet_virtio.ko.xz": ["kernel/net/9p/9pnet.ko.xz", "kernel/fs/netfs/netfs.ko.xz"],
    "kernel/fs/netfs/netfs.ko.xz": [],
    "kernel/drivers/gpu/drm/drm.ko.xz": [],
    "kernel/net/xfrm/xfrm-user.ko": [],
    "kernel/net/xfrmlike/other.ko": [],
}


def test_selected_are_the_folders_kept_and_what_they_need() -> None:
    assert selection(DEPENDENCIES, ["fs/ext4", "net/xfrm"]) == [
        "kernel/fs/ext4/ext4.ko.xz",
        "kernel/fs/jbd2/jbd2.ko.xz",
        "kernel/fs/mbcache.ko.xz",
        "kernel/lib/crc/crc16.ko.xz",
        "kernel/net/xfrm/xfrm-user.ko",
    ]


def test_each_module_is_loaded_once_and_after_what_it_needs() -> None:
    order = load_order(DEPENDENCIES, ["built_in_here", "ext4", "9pnet_virtio", "9pnet", "xfrm_user"])
    assert len(order) == len(set(order)) == 8
    for path in order:
        assert all(order.index(need) < order.index(path) for need in DEPENDENCIES[path])
    assert order[-1] == "kernel/net/xfrm/xfrm-user.ko"


def bzimage(tmp_path: Path, payload: bytes) -> Kernel:
    modules = tmp_path / "usr/lib/modules/7.0-amd64"
    modules.mkdir(parents=True)
    image = bytearray(1024)
    image[0x1F1] = 1  # one sector of setup code after the boot sector
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 16, len(payload) + 4)
    image += b"\0" * 16 + payload + struct.pack("<I", 1234) + b"trailing"
    (modules / "vmlinuz").write_bytes(image)
    return Kernel(tmp_path, "7.0-amd64")


def steps(tmp_path: Path) -> Steps:
    return Steps("test", tmp_path / "log", lambda _line: None)


def test_the_elf_image_is_taken_out_of_an_xz_kernel(tmp_path: Path) -> None:
    kernel = bzimage(tmp_path, lzma.compress(b"\x7fELF kernel"))
    assert boot_image(kernel, steps(tmp_path)) == b"\x7fELF kernel"


def test_the_elf_image_is_taken_out_of_a_zstd_kernel(tmp_path: Path) -> None:
    packed = subprocess.run(["zstd", "-c"], input=b"\x7fELF kernel", capture_output=True, check=True).stdout
    assert boot_image(bzimage(tmp_path, packed), steps(tmp_path)) == b"\x7fELF kernel"


def test_a_kernel_packed_otherwise_is_booted_as_it_is(tmp_path: Path) -> None:
    kernel = bzimage(tmp_path, b"\x1f\x8b gzip")
    assert boot_image(kernel, steps(tmp_path)) == kernel.image.read_bytes()


def test_a_file_that_is_no_kernel_is_named(tmp_path: Path) -> None:
    kernel = bzimage(tmp_path, b"")
    kernel.image.write_bytes(b"\0" * 2048)
    with pytest.raises(BuildError, match=r"vmlinuz is not a bzImage"):
        boot_image(kernel, steps(tmp_path))


def test_archives_may_follow_one_another_and_cpio_reads_them() -> None:
    one = archive([Entry("bin"), Entry("bin/tool", b"#!tool", executable=True)])
    two = archive([Entry("etc"), Entry("etc/odd", b"12345")])
    assert len(one) % 4 == len(two) % 4 == 0
    listing = subprocess.run(["cpio", "-itv", "--quiet"], input=one, capture_output=True, check=True).stdout.decode()
    assert [line.split()[0] for line in listing.splitlines()] == ["drwxr-xr-x", "-rwxr-xr-x"]
    extract = ["cpio", "-i", "--quiet", "--to-stdout", "etc/odd"]
    assert subprocess.run(extract, input=two, capture_output=True, check=True).stdout == b"12345"
