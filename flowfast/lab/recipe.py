"""What goes into each guest image, and the hash that names the result. No I/O beyond reading pyproject.toml."""

import hashlib
import json
import os
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from flowfast.model.errors import UsageError

CHECKOUT = Path(__file__).resolve().parents[2]
"""The checkout that the guest sees at /src."""

FORMAT = 4
"""Of the build steps: raise it when a change there must rebuild every image."""

PACKAGES = (
    "charon-systemd",  # strongSwan's daemon without the old starter; it runs without systemd
    "conntrack",
    "ethtool",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libstrongswan-standard-plugins",  # before Debian 13: AES-GCM and elliptic curves
    "linux-perf",
    "nftables",
    "procps",
    "python3",
    "python3-nftables",
    "strongswan-swanctl",
    "tcpdump",
    "util-linux",
)

OPERATED = ("ansible-core", "prometheus", "python3-apt", "python3-hatchling", "python3-venv", "systemd")
"""What operators put around flowfast, and what it is installed with."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One guest image: a Debian suite, and the suite whose newest kernel it boots.

    `out_of_tree` names modules that Debian does not build and that are compiled from its linux-source. `own_modules`
    are this project's own (flowfast/lab/module): no part of the image, but compiled for its kernel and given to each
    boot, so that a change to one does not rebuild the image.
    """

    name: str
    release: str
    suite: str
    kernel_suite: str
    python: str  # of the suite, "3.13": the dependencies are fetched for it on the host
    packages: tuple[str, ...] = PACKAGES
    out_of_tree: tuple[str, ...] = ()
    own_modules: tuple[str, ...] = ()

    def digest(self, dependencies: tuple[str, ...]) -> str:
        """Twelve hex digits over everything that was decided here; what a mirror decides (versions) is not in it."""
        decided = {"format": FORMAT, **asdict(self), "dependencies": dependencies}
        del decided["own_modules"]
        text = json.dumps(decided, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "debian14",
            release="Debian 14 (testing)",
            suite="testing",
            kernel_suite="testing",
            python="3.14",
            out_of_tree=("netdevsim", "xfrm_iptfs"),
            own_modules=("espsim", "queuesim"),
        ),
        Recipe(
            "debian14-operated",  # deploy/ is tried there
            release="Debian 14 (testing)",
            suite="testing",
            kernel_suite="testing",
            python="3.14",
            packages=(*PACKAGES, *OPERATED),
        ),
        Recipe(
            "debian13-bpo",
            release="Debian 13, backports kernel",
            suite="trixie",
            kernel_suite="trixie-backports",
            python="3.13",
        ),
        Recipe("debian13", release="Debian 13", suite="trixie", kernel_suite="trixie", python="3.13"),
        Recipe("debian12", release="Debian 12", suite="bookworm", kernel_suite="bookworm", python="3.11"),
    )
}
DEFAULT = "debian14"


def recipe(name: str) -> Recipe:
    """The recipe called `name`; UsageError names those that there are."""
    try:
        return RECIPES[name]
    except KeyError:
        raise UsageError(f"{name}: no such image (there are: {', '.join(RECIPES)})") from None


def dependencies(pyproject: Path = CHECKOUT / "pyproject.toml") -> tuple[str, ...]:
    """What the guest's Python needs: the project's own dependencies, and what runs its tests."""
    try:
        project = tomllib.loads(pyproject.read_text())["project"]
    except OSError as e:
        raise UsageError(f"{pyproject}: {e.strerror} (the lab runs from a checkout)") from e
    tests = [d for d in project["optional-dependencies"]["dev"] if d.startswith(("pytest", "hypothesis"))]
    return tuple(sorted(project["dependencies"] + tests))


def cache_folder() -> Path:
    """Where images are kept: $FLOWFAST_CACHE, else $XDG_CACHE_HOME/flowfast, else ~/.cache/flowfast."""
    if own := os.environ.get("FLOWFAST_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "flowfast"
