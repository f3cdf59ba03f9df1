"""Guest images on this machine: which are there, and building those that are not."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flowfast.lab import kernel_files, out_of_tree
from flowfast.lab.apt import KEYRING, Apt, mirror, source_line
from flowfast.lab.recipe import CHECKOUT, Recipe, cache_folder, dependencies
from flowfast.lab.steps import BuildError, Steps

Progress = Callable[[str], None]
BUSYBOX = Path("/usr/bin/busybox"), Path("/bin/busybox")
PYCACHE = "pycache"
"""Folder of the guest's root with all compiled Python, as PYTHONPYCACHEPREFIX wants it (machine.py says why)."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: its folder holds root.img (ext4), initrd and vmlinux."""

    recipe: Recipe
    folder: Path
    kernel: str

    @property
    def root(self) -> Path:
        """The root file system, a sparse ext4 image; booted read-only."""
        return self.folder / "root.img"

    @property
    def initrd(self) -> bytes:
        """The image's part of the first root: an uncompressed cpio archive."""
        return (self.folder / "initrd").read_bytes()

    @property
    def vmlinux(self) -> Path:
        """The kernel to boot."""
        return self.folder / "vmlinux"

    @property
    def lacks(self) -> list[str]:
        """Modules of this project that are not compiled for its kernel yet."""
        return out_of_tree.lacking(self.recipe.own_modules, self.kernel)

    @property
    def own_modules(self) -> dict[str, bytes]:
        """Modules of this project for its kernel, those that there are."""
        files = {name: out_of_tree.kept(name, self.kernel) for name in self.recipe.own_modules}
        return {name: file.read_bytes() for name, file in files.items() if file.is_file()}

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_blocks * 512 for file in self.folder.iterdir())


def folder_of(recipe: Recipe) -> Path:
    """Where the image of `recipe` is, or would be."""
    return cache_folder() / "images" / f"{recipe.name}-{recipe.digest(dependencies())}"


def find(recipe: Recipe) -> Image | None:
    """The image of `recipe`, if it is built. Asks the disk only, never the network."""
    folder = folder_of(recipe)
    try:
        kernel = json.loads((folder / "image.json").read_text())["kernel"]
    except FileNotFoundError:
        return None
    return Image(recipe, folder, kernel)


def ensure(recipe: Recipe, progress: Progress) -> Image:
    """The image of `recipe`, built first if it is not there. One builder at a time; a second one waits for the first.

    Raises BuildError with the end of the build's log.
    """
    if (image := find(recipe)) and not image.lacks:
        return image
    if os.geteuid() != 0:
        _build_as_root(recipe, progress)
    else:
        with _lock(recipe, progress):
            image = find(recipe)
            if image is None:
                build(recipe, progress)
            elif image.lacks:
                _own_modules(image, progress)
    if image := find(recipe):
        return image
    raise BuildError(f"{recipe.name}: the build left no image in {folder_of(recipe)}")


def _build_as_root(recipe: Recipe, progress: Progress) -> None:
    """mmdebstrap makes device nodes and chroots: the whole build runs under sudo, in the same cache folder."""
    if shutil.which("sudo") is None:
        raise BuildError(
            f"{recipe.name}: building an image needs root, or sudo (run `flowfast lab build` as root once)"
        )
    progress(f"{recipe.name}: building an image needs root: asking sudo")
    environment = [f"FLOWFAST_CACHE={cache_folder()}", f"PYTHONPATH={CHECKOUT}"]
    cache_folder().mkdir(parents=True, exist_ok=True)
    command = ["sudo", "env", *environment, sys.executable, "-m", "flowfast.cli.lab", "build", recipe.name]
    if subprocess.run(command, check=False).returncode != 0:
        raise BuildError(f"{recipe.name}: building under sudo failed (the lines above say why)")


@contextmanager
def _lock(recipe: Recipe, progress: Progress) -> Iterator[None]:
    folder = cache_folder() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{recipe.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"{recipe.name}: another process is building it: waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(recipe: Recipe, progress: Progress) -> None:
    """Builds the image of `recipe` beside the others, moves it into place at the end, and removes those it replaces."""
    final = folder_of(recipe)
    steps = Steps(recipe.name, cache_folder() / "logs" / f"{recipe.name}.log", progress)
    uri, busybox = mirror(), _busybox(recipe)
    # Beside the result, so that the last move is one rename; a build that was killed leaves it for the next one.
    for left in final.parent.glob(f".{recipe.name}.*.building"):
        shutil.rmtree(left)
    work = Path(tempfile.mkdtemp(prefix=f".{recipe.name}.", suffix=".building", dir=final.parent))
    try:
        rootfs, result = work / "rootfs", work / "result"
        # The three take their time on the network and on different cores.
        with ThreadPoolExecutor() as pool:
            debian = pool.submit(_debian, recipe, uri, rootfs, steps)
            unpacked = pool.submit(_kernel, recipe, uri, work, steps)
            python = pool.submit(_python_packages, recipe, work / "python", steps)
        debian.result()
        kernel, modules = unpacked.result()
        steps.say("adding kernel modules and Python packages")
        kernel_files.install_modules(kernel, rootfs, modules, steps)
        _install_python(recipe, python.result(), rootfs, steps)
        _finish_root(rootfs)
        result.mkdir()
        _boot_files(kernel, busybox, result, steps)
        _file_system(rootfs, result / "root.img", steps)
        (result / "image.json").write_text(json.dumps({"kernel": kernel.version, "release": recipe.release}) + "\n")
        _replace(recipe, result, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    steps.say(f"built, kernel {kernel.version}")


def _own_modules(image: Image, progress: Progress) -> None:
    """Compiles this project's own modules for an image that is built already."""
    recipe = image.recipe
    steps = Steps(recipe.name, cache_folder() / "logs" / f"{recipe.name}-modules.log", progress)
    with tempfile.TemporaryDirectory(prefix=f".{recipe.name}.", suffix=".modules", dir=image.folder.parent) as work:
        apt = Apt(Path(work) / "apt", mirror(), recipe.kernel_suite, steps.run)
        apt.update()
        out_of_tree.ensure(recipe.own_modules, image.kernel, apt, Path(work) / "modules", steps)


def _debian(recipe: Recipe, uri: str, rootfs: Path, steps: Steps) -> None:
    """The root file system, by mmdebstrap, without documentation."""
    steps.say("installing Debian's packages (mmdebstrap)")
    unwanted = ("doc", "man", "locale", "info", "lintian", "bug")
    steps.run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            f"--keyring={KEYRING}",
            '--aptopt=Acquire::Check-Valid-Until "false"',
            '--aptopt=Acquire::Languages "none"',
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in unwanted),
            f"--include={','.join(recipe.packages)}",
            recipe.suite,
            str(rootfs),
            source_line(uri, recipe.suite),
        ]
    )


def _kernel(recipe: Recipe, uri: str, work: Path, steps: Steps) -> tuple[kernel_files.Kernel, list[Path]]:
    """The kernel, unpacked, and the modules that Debian does not build, compiled."""
    apt = Apt(work / "apt", uri, recipe.kernel_suite, steps.run)
    apt.update()
    kernel = kernel_files.fetch(apt, work / "kernel", steps)
    wanted = (*recipe.out_of_tree, *recipe.own_modules)
    modules = out_of_tree.ensure(wanted, kernel.version, apt, work / "modules", steps)
    return kernel, [file for name, file in modules.items() if name in recipe.out_of_tree]


def _python_packages(recipe: Recipe, target: Path, steps: Steps) -> Path:
    """The project's dependencies as wheels for the guest's Python, which need not be the host's."""
    steps.say(f"fetching the dependencies for Python {recipe.python}")
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in (28, 17, 12, 5)] + ["manylinux2014_x86_64"]
    steps.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"),
            *("--no-compile", "--only-binary=:all:", f"--target={target}"),
            *("--implementation=cp", f"--python-version={recipe.python}"),
            *(f"--platform={name}" for name in platforms),
            *dependencies(),
        ]
    )
    return target


def _install_python(recipe: Recipe, packages: Path, rootfs: Path, steps: Steps) -> None:
    """Puts `packages` where the guest's Python finds them, compiled."""
    site = f"usr/local/lib/python{recipe.python}/dist-packages"
    shutil.copytree(packages, rootfs / site, dirs_exist_ok=True)
    steps.run(["chroot", str(rootfs), "python3", "-m", "compileall", "-q", f"/{site}", "/usr/lib/python3"])
    link_pycache(rootfs)


def _busybox(recipe: Recipe) -> Path:
    """A static busybox: in the first root there are no shared libraries, and the guest would panic without a word."""
    for path in BUSYBOX:
        if path.is_file() and not kernel_files.is_dynamic(path.read_bytes()):
            return path
    raise BuildError(f"{recipe.name}: busybox-static is not installed (`make setup-lab` installs it)")


def _boot_files(kernel: kernel_files.Kernel, busybox: Path, result: Path, steps: Steps) -> None:
    """The image's part of the initrd, and the kernel."""
    (result / "initrd").write_bytes(kernel_files.first_root(kernel, busybox))
    (result / "vmlinux").write_bytes(kernel_files.boot_image(kernel, steps))


def _file_system(rootfs: Path, root_image: Path, steps: Steps) -> None:
    """`rootfs` as a sparse ext4 image."""
    steps.say("making the file system")
    used = int(steps.run(["du", "-s", "--block-size=1M", str(rootfs)]).split()[0])
    # No journal: it is only ever read. The rest is room for ext4's own tables.
    options = ("-q", "-F", "-O", "^has_journal", "-m", "0", "-d", str(rootfs))
    steps.run(["mkfs.ext4", *options, str(root_image), f"{used + used // 4 + 64}M"])


def link_pycache(rootfs: Path) -> None:
    """Hard-links every compiled module of `rootfs` to where Python looks under PYTHONPYCACHEPREFIX=/pycache."""
    for folder in sorted((rootfs / "usr").rglob("__pycache__")):
        target = rootfs / PYCACHE / folder.parent.relative_to(rootfs)
        target.mkdir(parents=True, exist_ok=True)
        for compiled in folder.glob("*.pyc"):
            os.link(compiled, target / compiled.name)


def _finish_root(rootfs: Path) -> None:
    """What the guest's init expects to be there."""
    for name in ("src", "share", f"{PYCACHE}/src"):
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    (rootfs / "etc/hostname").write_text("flowfast\n")
    (rootfs / "etc/hosts").write_text("127.0.0.1 localhost flowfast\n::1 localhost\n")
    # The host's, copied in by mmdebstrap; the guest has no network.
    (rootfs / "etc/resolv.conf").unlink(missing_ok=True)
    wrapper = rootfs / "usr/local/bin/flowfast"
    wrapper.write_text('#!/bin/sh\nPYTHONPATH=/src exec python3 -m flowfast "$@"\n')
    wrapper.chmod(0o755)


def _replace(recipe: Recipe, result: Path, final: Path) -> None:
    """Moves the finished image into place, then removes older images of the same name."""
    if final.exists():
        shutil.rmtree(final)
    result.rename(final)
    digits = "[0-9a-f]" * 12
    for old in final.parent.glob(f"{recipe.name}-{digits}"):
        if old != final:
            shutil.rmtree(old)
