"""The present power of a laptop's battery, under /sys/class/power_supply: it supplies the whole machine, its screen included."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("sys/class/power_supply")


@dataclass(frozen=True, slots=True)
class Batteries:
    """All batteries of this machine."""

    folders: tuple[Path, ...]

    def watts(self) -> float | None:
        """Return their power together; None while none of them discharges, or where they don't say."""
        powers = [_watts(folder) for folder in self.folders]
        used = [value for value in powers if value is not None]
        return sum(used) if used else None


def find_batteries(root: Path = Path("/")) -> Batteries:
    """Return the batteries under this root."""
    try:
        folders = sorted((root / FOLDER).iterdir())
    except OSError:
        folders = []
    return Batteries(tuple(folder for folder in folders if _text(folder / "type") == "Battery" and _text(folder / "scope") != "Device"))


def _watts(folder: Path) -> float | None:
    if _text(folder / "status") != "Discharging":
        return None
    power = _number(folder / "power_now")
    if power is not None:
        return abs(power) / 1e6
    current, voltage = _number(folder / "current_now"), _number(folder / "voltage_now")
    return None if current is None or voltage is None else abs(current) * voltage / 1e12  # µA × µV


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None
