"""Lists the models that Ingle knows by name, with what they need and how fast they would be here: `ingle pull` without a name."""

from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingle.engine.bandwidth import Bandwidth, ModelOffer
    from ingle.home.place import Home

_HEADINGS = ("NAME", "PARAMETERS", "LICENCE", "FILE", "MEMORY", "SPEED HERE", "FITS", "KEPT")


def list_offers(as_json: bool, again: bool) -> None:
    """Print the table. The machine's speed is measured where it never was, or `again`. Raises HomeError for a home that can't be read."""
    from ingle.app.house import enter
    from ingle.cli.output import note, print_json, print_table
    from ingle.engine.bandwidth import offers
    from ingle.home.catalogue import SETS, SHIPPED

    home = enter()
    bandwidth = _measured(home, again)
    known = offers(home, bandwidth)
    if as_json:
        print_json({"models": [asdict(one) for one in known], "machine": None if bandwidth is None else asdict(bandwidth)})
        return
    print_table(_HEADINGS, [_row(one) for one in known])
    for one in known:
        if one.note:
            note(f"{one.name}: {one.note}")
    note(f"Also known, on the smallest: {', '.join(SHIPPED)}; for sound and pictures: {', '.join(SETS)}.")
    if bandwidth is not None:
        rates, when = [rate / 1e9 for rate in bandwidth.bytes_per_s.values()], bandwidth.measured_at[:10]
        read = f"{bandwidth.threads} threads read {min(rates):.0f} to {max(rates):.0f} GB of weights a second here ({when})"
        note(f"Sizes are about. Speed is predicted: {read}.")
        if bandwidth.provisional:
            note(f"Other programs took {bandwidth.others:.0%} of the cores meanwhile, so the next list measures again.")


def _measured(home: "Home", again: bool) -> "Bandwidth | None":
    """Return the machine's bandwidth; None where it can't be measured, which is said: what there is can be listed all the same."""
    from ingle.app.settings import read_settings
    from ingle.cli.output import complain, note
    from ingle.cli.progress import watching
    from ingle.core.errors import HomeError, KernelError
    from ingle.engine.bandwidth import bandwidth_of, read_bandwidth

    threads = read_settings(home).chat.threads
    kept = read_bandwidth(home, threads)
    again = again or (kept is not None and kept.provisional)
    if again or kept is None:
        note("How fast this machine reads weights is measured once; that takes a few seconds.")
    try:
        with watching() as watch:
            return bandwidth_of(home, threads, watch.pieces, watch.say, again)
    except (HomeError, KernelError) as error:
        complain(error)
        return None


def _row(one: "ModelOffer") -> tuple[str, ...]:
    from ingle.core.errors import size

    count = f"{one.parameters / 1e9:.1f}B" if one.parameters >= 1e9 else f"{one.parameters / 1e6:.0f}M"
    speed = "not foretold"
    if one.tokens_per_s is not None:
        speed = f"{one.tokens_per_s:.0f} tokens/s" if one.tokens_per_s >= 10 else f"{one.tokens_per_s:.1f} tokens/s"
    fits = "yes" if one.fits else one.why[0].lower() + one.why[1:]
    return one.name, count, one.licence, size(one.file_bytes), size(one.memory_bytes), speed, fits, one.kept
