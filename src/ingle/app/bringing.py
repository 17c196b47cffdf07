"""Pulls a model step by step: fetches it, checks it, makes it ready, and records it in the ledger."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ingle.app.house import open_ledger, record
from ingle.core.errors import ConfigError, IngleError
from ingle.core.progress import Watcher
from ingle.core.report import Event, Fact
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.ledger.row import MAX_TEXT

if TYPE_CHECKING:
    from ingle.home.base import Base
    from ingle.home.catalogue import Archived, Shipped


@dataclass(frozen=True, slots=True)
class Brought:
    """The outcome of a pull."""

    kept: Kept
    base: "Base"
    already: bool  # whether it was here before
    format: str
    packed_bytes: int
    model_digest: str


def bring(home: Home, what: str, watch: Watcher, name: str | None = None, format_: str = "auto", update: bool = False) -> Brought:
    """Pull `what`: check every weight before it is kept, pack it, compile the kernels, and record it.

    Each step that was done before is not done again, so this goes on where an earlier attempt was killed. Raises what `pull`
    and `warm` raise.
    """
    from ingle.home.catalogue import CATALOGUE, SHIPPED
    from ingle.home.pull import pull

    if what in SHIPPED:
        return _bring_shipped(home, SHIPPED[what], watch, name, format_, update)

    def check(folder: Path) -> None:
        from ingle.engine.composite_sight import check_composite
        from ingle.engine.packs import checkpoint_tokenizer
        from ingle.engine.tryout import try_words
        from ingle.model.checkpoint import check_finite, open_checkpoint
        from ingle.model.fields import read_json
        from ingle.model.hf_config import config_from_hf
        from ingle.model.tokenizer import open_tokenizer

        if what not in CATALOGUE:  # those are known to the byte
            watch.bytes("trying its tokenizer", 0, None)
            try_words(folder)
        if not any(path.suffix.lower() in (".safetensors", ".gguf") for path in folder.iterdir()):
            open_tokenizer(folder).check_fits(config_from_hf(read_json(folder / "config.json")))
            return
        checkpoint = open_checkpoint(folder)
        checkpoint_tokenizer(checkpoint, folder).check_fits(checkpoint.config)
        check_composite(folder, checkpoint)
        if checkpoint.left_out:
            watch.say(f"Its {checkpoint.left_out} are left out: Ingle runs the words of this model only.")
        total = sum(tensor.nbytes for tensor in (*(checkpoint.stored[name] for name in checkpoint.names), *checkpoint.eye.values()))
        done = 0

        def step(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            watch.bytes("checking every weight", done, total)

        check_finite(checkpoint, step)

    pulled = pull(home, what, check, name, watch.bytes, watch.say, update)
    # Recorded before it is made ready: from here on the model is kept, whatever happens next.
    _record(home, pulled.kept, pulled.base)
    from ingle.engine.packs import kept_source, warm
    from ingle.engine.tryout import try_step
    from ingle.home.kept import remove

    info = warm(kept_source(home, pulled.kept), format_, progress=watch.pieces)
    if what not in CATALOGUE:
        watch.pieces("trying its first steps", 0, 1)
        try:
            try_step(home, pulled.kept, format_)
        except IngleError:
            if not pulled.already:
                remove(home, pulled.kept.name, lambda freed: record(home, freed.event))
            raise
    return Brought(pulled.kept, pulled.base, pulled.already, format_, info.nbytes, info.digest)


def lay_lean(home: Home, brought: Brought, watch: Watcher) -> None:
    """Let the file of a pulled model lie on the disk once, and record it. If it can't, that is said."""
    from ingle.engine.lean_base import make_lean

    try:
        moved = make_lean(home, brought.kept, watch.pieces)
    except ConfigError as error:
        watch.say(f"Its files lie on the disk as they came: {error}")
        return
    if moved.freed:
        record(home, moved.event)


def _bring_shipped(home: Home, shipped: "Shipped", watch: Watcher, name: str | None, format_: str, update: bool) -> Brought:
    """Pull a model of the catalogue under its own name, and under `name` with the delta that ships with Ingle; one that adds an
    ability is called `MODEL+NAME`, unless there is a `name`, and the parts that it needs come, too.

    An earlier version of Ingle may have brought another change: with `update` the name moves to the present one.
    """
    from ingle.engine.packs import kept_source, warm
    from ingle.home.deltas import adopt_delta
    from ingle.home.kept import keep, list_kept, refuse_taken

    if shipped.parts:
        from ingle.home.catalogue import PARTS

        for part in shipped.parts:
            bring_part(home, PARTS[part], watch)
    if (shipped.parts or shipped.ability) and name is None:
        return _bring_beside(home, shipped, watch, format_)
    chosen = name or shipped.name
    refuse_taken(home, chosen, shipped.base.digest, update, (shipped.delta,))
    already = any((one.name, one.deltas) == (chosen, (shipped.delta,)) for one in list_kept(home, lambda *_: None))
    below = bring(home, shipped.of, watch, format_=format_)
    delta = adopt_delta(home, shipped.folder, shipped.delta)
    kept = keep(home, chosen, below.base.digest, (delta.digest,), replace=update)
    _record(home, kept, below.base)
    info = warm(kept_source(home, kept), format_, progress=watch.pieces)
    return Brought(kept, below.base, already, format_, info.nbytes, info.digest)


def _bring_beside(home: Home, shipped: "Shipped", watch: Watcher, format_: str) -> Brought:
    """Pull a model of the catalogue, and keep the delta that ships with Ingle as `MODEL+NAME`.

    Raises ConfigError where another delta of the model has that name.
    """
    from ingle.home.deltas import adopt_delta, refuse_taken_delta
    from ingle.home.kept import get_kept

    refuse_taken_delta(home, shipped.name, shipped.base.digest, shipped.delta)
    already = home.delta_folder(shipped.delta).exists()
    below = bring(home, shipped.of, watch, format_=format_)
    adopt_delta(home, shipped.folder, shipped.delta)
    kept = get_kept(home, f"{below.kept.name}+{shipped.name}")
    _record(home, kept, below.base)
    return Brought(kept, below.base, already, format_, below.packed_bytes, below.model_digest)


def bring_part(home: Home, entry: "Archived", watch: Watcher) -> "tuple[Base, bool]":
    """Pull a part, and record it. Return its base, and whether it was kept already. Raises PullError, HomeError."""
    from ingle.home.pull_part import pull_part

    base, already = pull_part(home, entry, watch.bytes)
    _record(home, Kept(entry.name, base.digest, (), base.pulled_at), base)
    return base, already


def _record(home: Home, kept: Kept, base: "Base") -> None:
    """Record a model that came or got a name, unless the ledger has the fact already."""
    from ingle.home.deltas import report_digest

    origin = {"source": base.source[-MAX_TEXT:], "revision": base.revision[:MAX_TEXT], "licence": base.licence[:MAX_TEXT]}
    printed = {name: "".join(c if c.isprintable() else "?" for c in text) for name, text in origin.items()}
    facts: dict[str, Fact] = {"base": base.digest, "bytes": base.nbytes, **printed}
    if kept.deltas:
        facts |= {"delta": kept.deltas[-1], "stack": kept.digest}
        if report := report_digest(home, kept.deltas[-1]):
            facts["report"] = report
    with open_ledger(home) as ledger:
        before = next(iter(ledger.read(subject=kept.name, kind="pull", last=1)), None)
        gone = next(iter(ledger.read(subject=kept.name, kind="rm", last=1)), None)
        same = before is not None and all(before.values.get(key) == facts.get(key) for key in ("base", "stack", "report"))
        if before is None or not same or (gone is not None and gone.seq > before.seq):
            ledger.append(Event("pull", kept.name, facts))
