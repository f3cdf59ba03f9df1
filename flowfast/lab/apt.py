"""Debian packages for a build: the machine's own mirror, and a private apt that leaves the machine's alone."""

import platform
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from flowfast.model.errors import Unavailable

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ETC_APT = Path("/etc/apt")

Run = Callable[[Sequence[str]], str]
"""Runs a program, returns what it printed; raises BuildError when it fails (flowfast.lab.steps)."""


def _stanzas(text: str) -> Iterable[dict[str, str]]:
    """The stanzas of a deb822 file (deb822(5)), field names in lower case, continuation lines joined."""
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        last = ""
        for line in block.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0].isspace() and last:
                fields[last] += " " + line.strip()
            elif ":" in line:
                last, value = line.split(":", 1)
                last = last.strip().lower()
                fields[last] = value.strip()
        if fields:
            yield fields


def _sources(path: Path) -> Iterable[tuple[str, list[str]]]:
    """(URI, suites) of every enabled binary source in one file of apt's."""
    text = path.read_text(errors="replace")
    if path.suffix == ".sources":
        for fields in _stanzas(text):
            if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() != "no":
                for uri in fields.get("uris", "").split():
                    yield uri, fields.get("suites", "").split()
        return
    for line in text.splitlines():
        # deb [options] URI suite components...
        if match := re.match(r"\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)", line):
            yield match[1], [match[2]]


def mirror(etc: Path = ETC_APT, codename: str | None = None) -> str:
    """The URI of the Debian mirror that this machine is configured to use: the source that carries its own release.

    Raises Unavailable where there is none, as on another distribution.
    """
    if codename is None:
        codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    own = {codename, "stable", "testing", "unstable", "sid"} - {""}
    files = [*sorted(etc.glob("sources.list.d/*.sources")), *sorted(etc.glob("sources.list.d/*.list"))]
    for path in [etc / "sources.list", *files]:
        if path.is_file():
            for uri, suites in _sources(path):
                if own & set(suites):
                    return uri
    raise Unavailable(
        f"{etc}: no Debian mirror for {codename or 'this release'} is configured (add one to build images)"
    )


def source_line(uri: str, suite: str) -> str:
    """One line of a sources.list."""
    return f"deb [signed-by={KEYRING}] {uri} {suite} main"


def version_key(version: str) -> tuple[int, ...]:
    """Orders kernel versions of one suite: 6.1.0-9 < 6.1.0-50, 7.2.9+deb13 < 7.2.12+deb13 < 7.3.4+deb13."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def newest_kernel(packages: Iterable[str]) -> str | None:
    """The newest full amd64 kernel among package names: "7.2.12+deb14-amd64"; cloud and rt flavours do not count.

    Cloud kernels lack e1000e, igb, vmxnet3 and 9p.
    """
    versions = {
        m[1] for p in packages if (m := re.fullmatch(r"linux-image-(\d[0-9.]*(?:-\d+)?(?:\+deb\d+)?-amd64)", p))
    }
    return max(versions, key=version_key, default=None)


class Apt:
    """apt with its own lists, cache and empty package status below `folder`, for one suite of `uri`.

    It is the machine's apt in all else (proxies, certificates), so it reaches what the machine reaches.
    """

    def __init__(self, folder: Path, uri: str, suite: str, run: Run) -> None:
        self.uri = uri
        self.suite = suite
        self._run = run
        for sub in ("lists/partial", "cache/archives/partial", "parts"):
            (folder / sub).mkdir(parents=True)
        (folder / "sources.list").write_text(source_line(uri, suite) + "\n")
        options = {
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": folder / "parts",
            "Dir::State::Lists": folder / "lists",
            "Dir::State::Status": "/dev/null",
            "Dir::Cache": folder / "cache",
            "Acquire::Languages": "none",
            # A mirror that lags makes apt call testing expired.
            "Acquire::Check-Valid-Until": "false",
            # The build runs as root in folders that the _apt user may not enter.
            "APT::Sandbox::User": "root",
        }
        self._options = [arg for key, value in options.items() for arg in ("-o", f"{key}={value}")]

    def update(self) -> None:
        """Fetches the suite's package list."""
        self._run(["apt-get", *self._options, "-qq", "update"])

    def names(self, prefix: str) -> list[str]:
        """Names of the suite's packages that start with `prefix`."""
        return self._run(["apt-cache", *self._options, "pkgnames", prefix]).split()

    def download(self, packages: Iterable[str], folder: Path) -> list[Path]:
        """Fetches the newest version of each of `packages` into `folder` (made), without what they depend on."""
        folder.mkdir(parents=True)
        self._run(["env", "-C", str(folder), "apt-get", *self._options, "-qq", "download", *packages])
        return sorted(folder.glob("*.deb"))
