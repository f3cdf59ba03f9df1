"""espsim in the lab: pairs of devices that do all of ESP themselves (module/espsim.c), and their settings."""

from pathlib import Path

from flowfast.lab.sims import FOLDER, Sims

MODULE = FOLDER / "espsim.ko"
SETTINGS = Path("/sys/module/espsim/parameters")


class EspSims(Sims):
    """Pairs of espsims."""

    def __init__(self, pairs: int = 1) -> None:
        super().__init__("espsim", pairs)


def setting(name: str, value: int | None = None) -> int:
    """A parameter of espsim, after it was set to `value`: deaf, still, sink, capacity, tx_secpath, tx_missed,
    busy."""
    if value is not None:
        (SETTINGS / name).write_text(str(value))
    text = (SETTINGS / name).read_text().strip()
    return {"Y": 1, "N": 0}[text] if text in "YN" else int(text)
