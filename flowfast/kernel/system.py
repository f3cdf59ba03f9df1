"""sysctls, modules, privileges, the kernel's release; and a fake of them."""

import contextlib
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from flowfast.kernel.netns import within
from flowfast.model.errors import KernelError

_PROC_SYS = Path("/proc/sys")
_XFRM_STAT = Path("/proc/thread-self/net/xfrm_stat")
_CAP_NET_ADMIN = 12


class RealSystem:
    """The machine. sysctls under net are those of the calling thread's network namespace."""

    def sysctl(self, name: str) -> str | None:
        """The value; None where this kernel has none of that name. Raises KernelError where it may not be read."""
        try:
            return _path(name).read_text().strip()
        except FileNotFoundError:
            return None
        except OSError as refused:
            raise KernelError(f"sysctl {name}: {refused.strerror}", refused.errno or 0) from refused

    def set_sysctl(self, name: str, value: str) -> None:
        """Writes it. Raises KernelError."""
        try:
            with _path(name).open("r+") as knob:  # never create
                knob.write(value)
        except OSError as refused:
            raise KernelError(f"sysctl {name}={value}: {refused.strerror}", refused.errno or 0) from refused

    def modules(self) -> frozenset[str]:
        """The modules that are loaded now or built in, with underscores."""
        loaded = [line.split()[0] for line in _lines(Path("/proc/modules"))]
        built_in = [Path(line).name.partition(".")[0] for line in _lines(self._folder() / "modules.builtin")]
        return frozenset(name.replace("-", "_") for name in (*loaded, *built_in))

    def load_module(self, name: str) -> bool:
        """Loads it by modprobe, which a blacklist may forbid; False where that fails or there is no modprobe."""
        try:
            return subprocess.run(["modprobe", "-q", "-b", name], capture_output=True, check=False).returncode == 0
        except OSError:
            return False

    def privileged(self) -> bool:
        """True where this thread has CAP_NET_ADMIN."""
        status = _lines(Path("/proc/thread-self/status"))
        effective = next((line.split()[1] for line in status if line.startswith("CapEff:")), "0")
        return bool(int(effective, 16) >> _CAP_NET_ADMIN & 1)

    def release(self) -> str:
        """uname -r."""
        return os.uname().release

    def xfrm_statistics(self, netns: str | None = None) -> Mapping[str, int] | None:
        """Every counter of /proc/net/xfrm_stat; None without CONFIG_XFRM_STATISTICS, or without that namespace.

        Read by whatever names the kernel gives: it gains some every other year.
        """
        if netns is None:
            return _numbers(_lines(_XFRM_STAT))
        with contextlib.suppress(OSError):
            return within(netns, lambda: _numbers(_lines(_XFRM_STAT)))
        return None

    def _folder(self) -> Path:
        return Path("/lib/modules") / self.release()


def _path(name: str) -> Path:
    """As sysctl(8) does: dots part, and a slash stands for a dot (net.ipv4.conf.eth0/100.forwarding)."""
    return _PROC_SYS / name.translate(str.maketrans("./", "/."))


def _numbers(lines: Iterable[str]) -> Mapping[str, int] | None:
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()} or None


def _lines(path: Path) -> list[str]:
    """The file's lines; none where it is not there (a kernel without modules has no /proc/modules), or is hidden
    (systemd's ProtectKernelModules)."""
    try:
        return path.read_text().splitlines()
    except (FileNotFoundError, PermissionError):
        return []


class FakeSystem:
    """A machine that a test makes up. `loadable`: what load_module() finds."""

    def __init__(
        self,
        *,
        sysctls: Mapping[str, str] | None = None,
        modules: Iterable[str] = (),
        loadable: Iterable[str] = (),
        privileged: bool = True,
        release: str = "7.2.0-fake",
        xfrm_errors: Mapping[str, int] | None = None,
    ) -> None:
        self.xfrm_errors = xfrm_errors
        self.sysctls = dict(sysctls or {})
        self.loaded = set(modules)
        self.loadable = set(loadable)
        self.is_privileged = privileged
        self.kernel_release = release

    def sysctl(self, name: str) -> str | None:
        """What was set."""
        return self.sysctls.get(name)

    def set_sysctl(self, name: str, value: str) -> None:
        """Sets one that is there."""
        if name not in self.sysctls:
            raise KernelError(f"sysctl {name}={value}: {os.strerror(2)}", 2)
        self.sysctls[name] = value

    def modules(self) -> frozenset[str]:
        """What is loaded."""
        return frozenset(self.loaded)

    def load_module(self, name: str) -> bool:
        """Loads one of `loadable`."""
        if name in self.loadable:
            self.loaded.add(name)
        return name in self.loaded

    def privileged(self) -> bool:
        """As made."""
        return self.is_privileged

    def release(self) -> str:
        """As made."""
        return self.kernel_release

    def xfrm_statistics(self, netns: str | None = None) -> Mapping[str, int] | None:
        """As made, in every namespace."""
        return self.xfrm_errors
