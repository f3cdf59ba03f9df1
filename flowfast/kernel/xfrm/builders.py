"""SAs and policies with sensible values, for tests: say only what the test is about."""

from flowfast.kernel.xfrm.config import NO_LIMITS
from flowfast.model.sa import SA, Counters, Direction, Encap, Mark, Mode, Offload, Policy, Replay, Selector, Template

ADDED = 1_700_000_000  # seconds since the epoch


def family_of(address: str) -> int:
    """AF_INET or AF_INET6."""
    return 10 if ":" in address else 2


def everything(family: int) -> Selector:
    """The selector that matches each packet of a family."""
    anywhere = "::/0" if family == 10 else "0.0.0.0/0"
    return Selector(family, anywhere, anywhere)


def make_sa(
    src: str = "192.0.2.1",
    dst: str = "192.0.2.2",
    spi: int = 0xC0000001,
    *,
    reqid: int = 1,
    mode: int = Mode.TUNNEL,
    proto: int = 50,
    direction: Direction | None = Direction.OUT,
    size: int = 0,
    packets: int = 0,
    use_time: int | None = None,
    esn: bool = True,
    window: int | None = None,
    oseq: int = 0,
    seq: int = 0,
    selector: Selector | None = None,
    algorithm: str | None = "rfc4106(gcm(aes))",
    if_id: int = 0,
    mark: Mark | None = None,
    pcpu: int | None = None,
    encap: Encap | None = None,
    offload: Offload | None = None,
) -> SA:
    """An ESP tunnel SA with AES-GCM-128 and ESN, outbound unless said otherwise. `size` in bytes, as `packets` counted.

    `algorithm=None` makes it larval. Without a `window` it has 128 packets inbound, none outbound.
    """
    if window is None:
        window = 0 if direction == Direction.OUT else 128
    return SA(
        family=family_of(dst),
        src=src,
        dst=dst,
        proto=proto,
        spi=spi,
        reqid=reqid,
        mode=mode,
        flags=128 if esn else 0,
        counters=Counters(size, packets, ADDED, use_time),
        lifetime=NO_LIMITS,
        selector=selector or everything(family_of(dst)),
        replay=Replay(oseq, seq, window, esn),
        replay_window_errors=0,
        replay_errors=0,
        integrity_errors=0,
        algorithm=algorithm,
        icv_bits=None if algorithm is None else 128,
        key_bits=None if algorithm is None else 160,
        if_id=if_id,
        mark=mark,
        direction=direction,
        pcpu=pcpu,
        encap=encap,
        offload=offload,
        last_used=use_time,
    )


def make_policy(
    src: str = "10.1.0.0/24",
    dst: str = "10.2.0.0/24",
    direction: Direction = Direction.OUT,
    *,
    tunnel: tuple[str, str] | None = ("192.0.2.1", "192.0.2.2"),
    reqid: int = 1,
    mode: int = Mode.TUNNEL,
    priority: int = 1000,
    policy_index: int = 0,
    action: int = 0,
    if_id: int = 0,
    mark: Mark | None = None,
    flags: int = 0,
    offload: Offload | None = None,
    optional: bool = False,
    socket: bool = False,
) -> Policy:
    """A policy that sends packets from `src` to `dst` through the SA of `tunnel`; with None it lets them pass."""
    templates: tuple[Template, ...] = ()
    if tunnel is not None:
        templates = (Template(family_of(tunnel[1]), *tunnel, 50, 0, reqid, mode, optional),)
    return Policy(
        Selector(family_of(dst), src, dst),
        direction,
        policy_index,
        priority,
        action,
        templates=templates,
        if_id=if_id,
        mark=mark,
        flags=flags,
        offload=offload,
        counters=Counters(0, 0, ADDED, None),
        lifetime=NO_LIMITS,
        socket=socket,
    )
