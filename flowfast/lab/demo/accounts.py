"""Who carried what: readings of counters to traffic by tunnel, way and SA."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from flowfast.lab.demo.meter import Meter, Reading, esp_packets
from flowfast.lab.demo.result import ROUTES, EspWork, Route, Sample, SaTraffic, Traffic, Way
from flowfast.lab.demo.site import TunnelSite
from flowfast.lab.topology import wan_address
from flowfast.model.sa import SA


def way_of(sa: SA) -> Way:
    """Which way an SA goes, seen from gw1, whichever gateway has it."""
    return "tx" if sa.src == wan_address(1, 4) else "rx"


class Accounts:
    """Of one part, which `began` at that time.monotonic(). `names`: the tunnels' by reqid, where SAs are read."""

    def __init__(self, meter: Meter, names: Mapping[int, str], began: float) -> None:
        self._meter, self._names, self._began = meter, names, began
        self._by_sa: dict[Route, dict[int, Traffic]] = {route: defaultdict(Traffic) for route in ROUTES}

    def tunnel_of(self, spi: int) -> str | None:
        """The name of the tunnel that an SA belongs to."""
        sa = self._meter.sas.get(spi)
        return self._names.get(sa.reqid) if sa is not None else None

    def spis(self, way: Way, tunnel: str | None = None) -> set[int]:
        """The SAs of one way, of one tunnel or of all."""
        return {
            spi
            for spi, sa in self._meter.sas.items()
            if way_of(sa) == way and tunnel in (None, self._names.get(sa.reqid))
        }

    def carried(self, readings: tuple[Reading, Reading], tunnel: str, way: Way, route: Route) -> Traffic:
        """Growth between two readings; only one tunnel is loaded, so that what was forwarded was its."""
        before, after = readings
        total = Traffic(
            forward_bytes=after.forward[way].bytes - before.forward[way].bytes,
            forward_packets=after.forward[way].packets - before.forward[way].packets,
        )
        for spi in self.spis(way, tunnel) & after.sas.keys():
            old, new = before.sas.get(spi), after.sas[spi]
            grown = Traffic(new.bytes - (old.bytes if old else 0), new.packets - (old.packets if old else 0))
            total += grown
            self._by_sa[route][spi] += grown + Traffic(0, 0, total.forward_bytes, total.forward_packets)
        return total

    def sa_rows(self) -> Iterator[SaTraffic]:
        """What each SA of a tunnel carried."""
        for spi, sa in self._meter.sas.items():
            if sa.reqid in self._names:
                yield SaTraffic(
                    tunnel=self._names[sa.reqid],
                    way=way_of(sa),
                    spi=spi,
                    algorithm=sa.algorithm or "-",
                    cpu=sa.pcpu,
                    full=self._by_sa["full"][spi],
                    fast=self._by_sa["fast"][spi],
                )

    def samples(self) -> Iterator[Sample]:
        """Running totals over the whole time."""
        out, inward = self.spis("tx"), self.spis("rx")
        for each in self._meter.between(self._meter.readings[0], self._meter.readings[-1]):
            yield Sample(
                at=round(each.at - self._began, 4),
                tx=each.bytes(out),
                rx=each.bytes(inward),
                forward_tx=each.forward["tx"].bytes,
                forward_rx=each.forward["rx"].bytes,
            )

    def esp_work(self, sas: list[SA], devices: Mapping[int, str], tunnels: tuple[TunnelSite, ...]) -> Iterator[EspWork]:
        """Who did ESP of gw1's SAs; `devices`: its devices' names by ifindex."""
        wanted = {tunnel.name: tunnel.offload for tunnel in tunnels}
        for sa in sas:
            name, way = self.tunnel_of(sa.spi), way_of(sa)
            if name is None:
                continue
            in_nic = sa.offload is not None and sa.offload.packet
            seen = sa.replay.oseq if way == "tx" else sa.replay.seq
            yield EspWork(
                tunnel=name,
                way=way,
                spi=sa.spi,
                wanted=wanted[name],
                device=devices.get(sa.offload.ifindex) if sa.offload is not None and in_nic else None,
                packets=sa.counters.packets if in_nic else esp_packets(sa),
                by_cpu=seen if in_nic else esp_packets(sa),
            )
