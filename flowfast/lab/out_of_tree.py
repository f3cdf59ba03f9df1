"""Modules that Debian leaves out of its kernels, compiled from its own linux-source against its own linux-headers.

netdevsim simulates devices with ESP offload; xfrm_iptfs is RFC 9347 (AGGFRAG, "IP-TFS"). This project's own devices
(flowfast/lab/module) do all of ESP (espsim), or choose queues by SPI (queuesim). They are compiled with the suite's own
compiler, in a folder that apt fills and nothing is installed in, and kept by kernel version: an image that is rebuilt
for another reason finds them.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from flowfast.lab.apt import KEYRING, Apt, source_line
from flowfast.lab.recipe import cache_folder
from flowfast.lab.steps import BuildError, Steps

TOOLS = ("base-files", "coreutils", "dash", "findutils", "grep", "make", "mawk", "sed")
"""Besides the headers, which bring the compiler: what kbuild calls."""


def _netdevsim(source: Path, folder: Path) -> None:
    shutil.copytree(source / "drivers/net/netdevsim", folder)


def _xfrm_iptfs(source: Path, folder: Path) -> None:
    (folder / "include/a/b").mkdir(parents=True)
    (folder / "include/net/xfrm").mkdir(parents=True)
    for name in ("xfrm_iptfs.c", "xfrm_inout.h", "trace_iptfs.h"):
        shutil.copy(source / "net/xfrm" / name, folder)
    # The trace header is looked for as ../../net/xfrm/trace_iptfs.h from an include folder.
    shutil.copy(source / "net/xfrm/trace_iptfs.h", folder / "include/net/xfrm")
    (folder / "Makefile").write_text("obj-m := xfrm_iptfs.o\nccflags-y += -I$(src)/include/a/b\n")


def _own(_source: Path, folder: Path) -> None:
    folder.mkdir()
    shutil.copy(OWN[folder.name], folder)
    (folder / "Makefile").write_text(f"obj-m := {folder.name}.o\n")


SOURCES: Mapping[str, tuple[str | None, Callable[[Path, Path], None]]] = {
    "netdevsim": ("drivers/net/netdevsim", _netdevsim),
    "xfrm_iptfs": ("net/xfrm", _xfrm_iptfs),
    "espsim": (None, _own),
    "queuesim": (None, _own),
}
"""Module -> the folder of the kernel's source that it needs, and what lays that out to be compiled by itself."""

OWN: Mapping[str, Path] = {name: Path(__file__).parent / f"module/{name}.c" for name in ("espsim", "queuesim")}
"""Modules of this project -> their source. Another source is another module, for who keeps them."""


def kept(name: str, version: str) -> Path:
    """Where the module for kernel `version` is, or would be."""
    mark = f"-{hashlib.sha256(OWN[name].read_bytes()).hexdigest()[:12]}" if name in OWN else ""
    return cache_folder() / "modules" / version / f"{name}{mark}.ko"


def lacking(names: Iterable[str], version: str) -> list[str]:
    """Those of the modules that are worth compiling: not there, and not known to fail."""
    files = {name: kept(name, version) for name in names}
    return [name for name, file in files.items() if not file.is_file() and not _failed(file).is_file()]


def _failed(module: Path) -> Path:
    """What says that it did not compile: it would not the next time either."""
    return module.with_suffix(".failed")


def ensure(names: Iterable[str], version: str, apt: Apt, work: Path, steps: Steps) -> Mapping[str, Path]:
    """The .ko files of the modules `names` for kernel `version`, compiled unless they are kept from before.

    A source that no longer compiles by itself costs the image that module, and says so; it is no reason to have none.
    """
    wanted = tuple(names)
    if missing := [name for name in wanted if not kept(name, version).is_file()]:
        steps.say(f"compiling {' and '.join(missing)}, which Debian leaves out")
        work.mkdir()
        kept(missing[0], version).parent.mkdir(parents=True, exist_ok=True)
        try:
            compiler = _compiler(version, apt, work / "root", steps)
            source = _source(version, missing, apt, work, steps)
            for name in missing:
                _keep(_compile(name, version, source, compiler, steps), kept(name, version))
        except BuildError as e:
            steps.say(f"going on without {' and '.join(missing)}: {str(e).splitlines()[0]}")
            for name in lacking(missing, version):
                _failed(kept(name, version)).touch()
    return {name: kept(name, version) for name in wanted if kept(name, version).is_file()}


def _keep(module: Path, kept: Path) -> None:
    """Puts a compiled module where the next build finds it, whole or not at all."""
    partial = kept.with_name(f".{kept.name}")
    shutil.copyfile(module, partial)
    partial.rename(kept)


def _compiler(version: str, apt: Apt, root: Path, steps: Steps) -> Path:
    """A folder with the kernel's headers, the compiler that they name, and what make needs; unpacked, not installed."""
    packages = (f"linux-headers-{version}", *TOOLS)
    steps.run(
        [
            *("mmdebstrap", "--mode=root", "--variant=extract", f"--keyring={KEYRING}"),
            '--aptopt=Acquire::Check-Valid-Until "false"',
            '--aptopt=Acquire::Languages "none"',
            *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale")),
            *(f"--include={','.join(packages)}", apt.suite, str(root), source_line(apt.uri, apt.suite)),
        ]
    )
    # Its link is made when it is installed.
    (root / "usr/bin/awk").symlink_to("mawk")
    return root


def _source(version: str, names: list[str], apt: Apt, work: Path, steps: Steps) -> Path:
    """The folders of the kernel's source that the modules need."""
    needed = {folder for name in names if (folder := SOURCES[name][0]) is not None}
    if not needed:
        return work
    line = re.match(r"\d+\.\d+", version)
    assert line is not None  # noqa: S101 - apt.newest_kernel() only returns such
    (deb,) = apt.download([f"linux-source-{line[0]}"], work / "debs")
    steps.run(["dpkg", "-x", str(deb), str(work)])
    top = f"linux-source-{line[0]}"
    folders = sorted(f"{top}/{folder}" for folder in needed)
    steps.run(["tar", "-xJf", str(work / f"usr/src/{top}.tar.xz"), "-C", str(work), *folders])
    return work / top


def _compile(name: str, version: str, source: Path, root: Path, steps: Steps) -> Path:
    """Compiles and strips one module below `root`; returns the file."""
    SOURCES[name][1](source, root / name)
    inside = ["unshare", "--mount", "--pid", "--fork", f"--root={root}", "--mount-proc"]
    make = ["make", "-s", "-j2", "-C", f"/usr/lib/modules/{version}/build", f"M=/{name}"]
    steps.run([*inside, *make, f"CONFIG_{name.upper()}=m", "modules"])
    steps.run([*inside, "x86_64-linux-gnu-strip", "--strip-debug", f"/{name}/{name}.ko"])
    return root / name / f"{name}.ko"
