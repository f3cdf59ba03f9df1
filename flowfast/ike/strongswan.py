"""strongSwan: strongswan.conf and swanctl.conf as the running daemon has them, and its vici socket.

Options and their defaults: strongswan.conf(5) and swanctl.conf(5) of 5.9 to 6.1.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from flowfast.ike.settings import BadSettings, Settings, parse
from flowfast.ike.vici import Answer
from flowfast.model.ike import IkeChild, IkeDaemon

_NETLINK = "plugins.kernel-netlink"
DAEMON_OPTIONS: Mapping[str, str] = {
    "install_routes": "yes",
    "install_virtual_ip": "yes",
    "replay_window": "32",
    "delete_rekeyed_delay": "5",
    f"{_NETLINK}.install_routes_xfrmi": "no",
    f"{_NETLINK}.hw_offload_feature_interface": "lo",
    f"{_NETLINK}.mss": "0",
    f"{_NETLINK}.mtu": "0",
    f"{_NETLINK}.parallel_xfrm": "no",
    f"{_NETLINK}.policy_optional": "no",
    f"{_NETLINK}.roam_events": "yes",
    f"{_NETLINK}.set_proto_port_transport_sa": "no",
    f"{_NETLINK}.xfrm_acq_expires": "165",
}
"""Options of the daemon with what holds where nobody sets them."""
CHILD_OPTIONS: Mapping[str, str] = {
    "copy_df": "yes",
    "hw_offload": "no",
    "if_id_in": "0",
    "if_id_out": "0",
    "mode": "tunnel",
    "per_cpu_sas": "no",
    "policies": "yes",
    "replay_window": "",  # the daemon's
    "set_mark_in": "",
    "start_action": "none",
}
CONNECTION_OPTIONS: Mapping[str, str] = {"if_id_in": "0", "if_id_out": "0", "vips": ""}
"""The if_ids of a connection are those of its children that have none of their own."""

_SOCKET = "plugins.vici.socket"
_KEEP = frozenset(
    name.rpartition(".")[2] for name in (*DAEMON_OPTIONS, *CHILD_OPTIONS, *CONNECTION_OPTIONS, _SOCKET)
)  # fmt: skip
_VICI = "unix:///var/run/charon.vici"

Ask = Callable[[Path], Answer | None]


def strongswan(
    program: str, root: Path, environment: Mapping[str, str], ask: Ask, default: str = "/etc/strongswan.conf"
) -> IkeDaemon:
    """A daemon called `program` (charon-systemd, charon), whose files are under `root`. What cannot be read is said."""
    conf = environment.get("STRONGSWAN_CONF", default)
    folder = environment.get("SWANCTL_DIR", "/etc/swanctl")
    unread: list[str] = []
    main = _load(root, Path(conf), unread)
    connections = _load(root, Path(folder) / "swanctl.conf", unread)

    def of(option: str) -> str | None:
        value = main.get(f"{program}.{option}")  # charon-systemd takes from charon what it has not
        return main.get(f"charon.{option}") if value is None else value

    socket = of(_SOCKET) or _VICI
    said = ask(root / socket.removeprefix("unix://").lstrip("/")) if socket.startswith("unix://") else None
    return IkeDaemon(
        "strongSwan",
        conf,
        version=said.version if said else None,
        options={f"charon.{name}": of(name) or default for name, default in DAEMON_OPTIONS.items()},
        children=tuple(_children(connections)),
        loaded=said.connections if said else None,
        unread=tuple(unread),
    )


def _children(settings: Settings) -> Iterator[IkeChild]:
    for connection in settings.within("connections"):
        at = f"connections.{connection}"
        common = {name: settings.get(f"{at}.{name}") or default for name, default in CONNECTION_OPTIONS.items()}
        for child in settings.within(f"{at}.children"):
            own = {name: settings.get(f"{at}.children.{child}.{name}") for name in CHILD_OPTIONS}
            options = {name: own[name] or common.get(name) or default for name, default in CHILD_OPTIONS.items()}
            yield IkeChild(connection, child, common | options)


def _load(root: Path, path: Path, unread: list[str]) -> Settings:
    """The file with all that it includes; none of it where it cannot be read."""
    settings = Settings()

    def texts(pattern: str) -> Iterator[str]:
        # Relative to the file's own folder, as strongSwan does.
        whole = Path(pattern) if pattern.startswith("/") else path.parent / pattern
        base = root / str(whole.parent).lstrip("/")
        for each in sorted(base.glob(whole.name)):
            yield from _text(each, f"{whole.parent}/{each.name}", unread)

    for text in _text(root / str(path).lstrip("/"), str(path), unread):
        try:
            parse(text, _KEEP, texts, settings)
        except BadSettings as bad:
            unread.append(f"{path}: {bad}")
    return settings


def _text(path: Path, shown: str, unread: list[str]) -> Iterator[str]:
    try:
        yield path.read_text(errors="replace")
    except OSError as refused:
        unread.append(f"{shown}: {refused.strerror}")
