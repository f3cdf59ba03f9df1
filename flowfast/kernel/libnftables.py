"""The only import of libnftables' Python binding, which is the distribution's and not on PyPI."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from flowfast.model.errors import KernelError, Unavailable

PACKAGES = "apt install python3-nftables; python3-nftables on Fedora, py3-nftables on Alpine"

_ERROR = re.compile(r"(?:^|: )Error: (.*)")
_SHOWN = 160
_QUOTES = str.maketrans("\u2018\u2019", "''")
_CODES = {os.strerror(code): code for code in sorted(errno.errorcode, reverse=True)}
_OWN_WORDS = (  # what libnftables says itself of what the kernel would have refused with that code
    ("interval overlaps with an existing one", errno.EEXIST),
    ("conflicting intervals specified", errno.EEXIST),
    ("already exists", errno.EEXIST),
    ("element does not exist", errno.ENOENT),
)


def run(commands: str, *, json: bool = False, dry_run: bool = False) -> str:
    """Runs commands in nft's native syntax as one netlink batch, and returns what they print, without counters' values.

    Every call has a context of its own, and with it a netlink socket: that costs 0.1 ms, and lets it be called from any
    thread, in the network namespace of that thread. Raises KernelError (`code` is the errno where nft's words tell it,
    else EINVAL) and Unavailable.
    """
    context = _context()
    context.set_json_output(json)
    context.set_stateless_output(True)
    context.set_numeric_proto_output(True)  # names come from /etc/protocols, which a router may lack
    context.set_dry_run(dry_run)
    code, output, errors = context.cmd(commands)
    if code != 0:
        raise error_of(errors)
    return str(output)


def version() -> str | None:
    """nft's version, as the nft beside the library says it ("1.1.7"); None where there is no nft."""
    try:
        said = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return None
    found = re.search(r"v(\d[\d.]*)", said)
    return found[1] if found else None


def error_of(errors: str) -> KernelError:
    """The first of nft's complaints as one line: what is wrong, and the command that it is about."""
    lines = errors.splitlines()
    for number, line in enumerate(lines):
        if found := _ERROR.search(line):
            reason = found[1].removeprefix("Could not process rule: ").strip().translate(_QUOTES)
            return KernelError(f"nft: {reason}{_place(*lines[number + 1 : number + 3])}", _code(reason))
    return KernelError(f"nft: {' '.join(errors.split()) or 'failed and does not say why'}", errno.EINVAL)


def _place(command: str = "", carets: str = "") -> str:
    """`: "lan0" in: add flowtable ...`, from the command and the line that underlines a part of it."""
    marked = command[len(carets) - len(carets.lstrip()) : len(carets.rstrip())].strip() if "^" in carets else ""
    part = f': "{marked}" in' if marked and marked != command.strip() else ""
    shown = command.strip() if len(command) <= _SHOWN else f"{command[:_SHOWN].strip()}..."
    return f"{part}: {shown}" if shown else ""


def _code(reason: str) -> int:
    reason = reason.partition(";")[0]  # "No such file or directory; did you mean table ... "
    if reason in _CODES:
        return _CODES[reason]
    return next((code for words, code in _OWN_WORDS if words in reason), errno.EINVAL)


def _context() -> Any:
    """A libnftables context. Raises Unavailable with the package to install."""
    try:
        import nftables  # noqa: PLC0415 - only who needs it pays, and may do without
    except ImportError as missing:
        hidden = "; this venv was made without --system-site-packages and hides it" if _isolated() else ""
        raise Unavailable(f"libnftables: its Python binding is missing ({PACKAGES}){hidden}") from missing
    try:
        return nftables.Nftables()
    except OSError as missing:
        raise Unavailable(f"libnftables: {missing} ({PACKAGES})") from missing


def _isolated() -> bool:
    """True in a virtual environment that does not see the system's packages."""
    settings = Path(sys.prefix) / "pyvenv.cfg"
    if sys.prefix == sys.base_prefix or not settings.exists():
        return False
    return re.search(r"^include-system-site-packages\s*=\s*true", settings.read_text(), re.I | re.M) is None
