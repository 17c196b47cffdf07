"""Load a kept model: pack it if needed, check it, map it, and add its tokenizer and deltas."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Lock, Thread
from weakref import WeakValueDictionary

from ingle.core.delta import Delta
from ingle.core.digest import digest_json
from ingle.core.errors import DeltaError, IngleError
from ingle.core.process import release_memory
from ingle.core.progress import Progress, silent
from ingle.engine.backend import Backend
from ingle.engine.composite_sight import composite_sight
from ingle.engine.delta_kinds import VIRTUAL, additions_of, virtual_of
from ingle.engine.language_model import LanguageModel, Painter, Seer
from ingle.engine.packs import Source, cache_dtype, check_pack, kept_source, merged_checkpoint, read_pack, warm
from ingle.engine.threads import Cores
from ingle.engine.tools import style_of
from ingle.engine.tryout import warm_apart
from ingle.home.catalogue import CATALOGUE
from ingle.home.deltas import ABILITIES, delta_report, get_delta
from ingle.home.kept import Kept
from ingle.home.lean import WEIGHTS
from ingle.home.place import Home
from ingle.media.sight import open_sight
from ingle.model.tokenizer import FACTS_FILE, TOKENIZER_FILE, Tokenizer, open_tokenizer
from ingle.model.tokenizer_apart import TokenizerApart


def open_model(
    source: Source, format_: str = "auto", threads: int | None = None, cache: str = "auto", progress: Progress = silent
) -> LanguageModel:
    """Return the model on the CPU backend. Raises as `warm` does, CheckpointError for packed weights that have changed, and HomeError or
    DeltaError for deltas that are damaged or don't fit."""
    cores = Cores(threads)
    backend, tokenizer = _open_weights(source, format_, cores, cache, progress)
    return _with_deltas(source, backend, tokenizer, _seer(source, format_, tokenizer, cores))


# Bases whose every byte we know; the others' tokenizers and templates are strangers'.
_KNOWN = frozenset(entry.digest for entry in CATALOGUE.values())


class Opener:
    """Opens kept models in one format. Models with the same weights share one backend, so the weights lie in memory once and requests for
    any of these models share a batch. A backend goes when no model uses it any more.

    Without a `progress`, weights are packed by another process (engine/tryout.py), so that answers continue meanwhile.
    """

    def __init__(self, format_: str = "auto", cores: Cores | None = None, cache: str = "auto", apart: bool = False) -> None:
        """`apart`: whether strangers' tokenizers and chat templates work in processes of their own (model/tokenizer_apart.py), as they
        must where one model's must not hold up another's answers."""
        self._settings, self._apart = (format_, cores or Cores(), cache), apart
        self._backends: WeakValueDictionary[str, Backend] = WeakValueDictionary()
        self._tokenizers: WeakValueDictionary[str, Tokenizer] = WeakValueDictionary()
        self._seers: WeakValueDictionary[str, Seer] = WeakValueDictionary()
        self._locks: dict[str, Lock] = {}
        self._words = Lock()

    def __call__(self, home: Home, kept: Kept, progress: Progress | None = None) -> LanguageModel:
        """Return the model. Raises what `kept_source` and `open_model` raise. Thread-safe."""
        source, format_ = kept_source(home, kept), self._settings[0]

        def apart() -> None:
            if progress is None and read_pack(source.pack_folder(format_), source.digest) is None:
                warm_apart(home, kept, format_, self._settings[2])

        return self.open(source, progress or silent, apart)

    def open(self, source: Source, progress: Progress = silent, before: Callable[[], object] = lambda: None) -> LanguageModel:
        """Return the model of a source; `before` is called if its weights are not open yet. Raises what `open_model` raises."""
        base = source.folder.name
        with self._locks.setdefault(source.digest, Lock()):
            backend, tokenizer = self._backends.get(source.digest), self._tokenizers.get(base)  # no delta touches the words
            if backend is None or tokenizer is None:
                before()
                backend, tokenizer = _open_weights(source, *self._settings, progress, tokenizer, self._apart and base not in _KNOWN)
                self._backends[source.digest] = backend
                with self._words:  # other weights of this base may have been opened meanwhile: the first tokenizer serves all
                    tokenizer = self._tokenizers.setdefault(base, tokenizer)
        seer = _seer(source, self._settings[0], tokenizer, self._settings[1])
        if seer is not None:
            seer = self._seers.setdefault(seer.sight.digest, seer)  # models that see alike share what was seen
        return _with_deltas(source, backend, tokenizer, seer)


def _open_weights(
    source: Source, format_: str, cores: Cores, cache: str, progress: Progress, known: Tokenizer | None = None, apart: bool = False
) -> tuple[Backend, Tokenizer]:
    """Open the base with its merged deltas. `known`: its tokenizer, because reading one from its file blocks all threads for 0.1 s."""
    info = warm(source, format_, cache, progress)
    folder = source.pack_folder(format_)
    fault: list[IngleError] = []

    def check() -> None:  # hashing 100 MB takes as long as reading the vocabulary: both at once
        try:
            check_pack(folder, info, {WEIGHTS})
        except IngleError as error:
            fault.append(error)

    checking = Thread(target=check)
    checking.start()
    try:
        if known is None:
            check_pack(folder, info, {TOKENIZER_FILE, FACTS_FILE})
        backend = Backend(folder, info, cores, cache_dtype(cache, format_))  # first: it lets the compiler's memory go
        tokenizer = known or (_open_apart(folder) if apart else open_tokenizer(folder))
    finally:
        checking.join()
    if fault:
        raise fault[0]
    release_memory()  # 13 MB of the parsed vocabulary, needed for a moment
    return backend, tokenizer


def _open_apart(folder: Path) -> Tokenizer:
    """Open a tokenizer in another process, and ask all of it that would otherwise be asked while others wait."""
    tokenizer = TokenizerApart(folder)
    style_of(tokenizer)
    return tokenizer


def _seer(source: Source, format_: str, tokenizer: Tokenizer, cores: Cores) -> Seer | None:
    """Return how the model sees: the last delta that teaches it to, else what its base brings; None for a model of words alone."""
    taught = [delta for delta in source.media if delta.kind == "sight"]
    if not taught:
        sight = composite_sight(source.folder, source.folder.name, format_, tokenizer, lambda: cores.limit)
        return Seer(sight) if sight is not None else None
    [change] = source.changes(taught[-1:])
    assert source.home is not None, "deltas lie in a home"
    return Seer(open_sight(source.home, taught[-1], change.tensors))


def _painter(source: Source, runner: Backend) -> Painter | None:
    """Return how the model paints: by the last delta that teaches it to."""
    taught = [delta for delta in source.media if delta.kind == "painter"]
    if not taught:
        return None
    digest = digest_json([delta.digest for delta in (*source.beside, taught[-1])])
    assert source.home is not None, "deltas lie in a home"
    things = (delta_report(source.home, taught[-1].digest) or {}).get("things", {})
    return Painter(taught[-1].name, digest, runner, lambda: (source.changes(taught[-1:])[0].tensors, source.changes(source.beside)), things)


def _with_deltas(source: Source, runner: Backend, tokenizer: Tokenizer, seer: Seer | None = None) -> LanguageModel:
    """Return the model with `runner`'s weights and the deltas that stay beside them."""
    backend = runner
    if source.virtual is not None:
        [change] = source.changes([source.virtual])
        backend = runner.beginning_with(*virtual_of(runner.config, change), source.virtual.digest)
    if not source.beside:
        return LanguageModel(source.name, backend, tokenizer, seer=seer, painter=_painter(source, runner))
    changes, digest = source.changes(source.beside), digest_json([delta.digest for delta in source.beside])
    # A low-rank addition is the same whatever it is added to; others are computed from the weights, which takes a moment to open.
    low_rank = all(change.kind == "lora" for change in changes)
    additions = additions_of(runner.config, changes, None if low_rank else merged_checkpoint(source))
    return LanguageModel(source.name, backend, tokenizer, runner.adapter(additions, digest), digest, seer, _painter(source, runner))


def beside(home: Home, kept: Kept, model: LanguageModel, delta: Delta) -> LanguageModel:
    """Return the model (`kept`, opened) with one more `lora` delta beside its weights; the same weights serve both.

    Raises DeltaError if the delta was made for something else or can't stand there (see `can_stand_beside`), HomeError if it is damaged.
    """
    delta.check_base(kept.digest)
    can_stand_beside(home, kept, delta.kind)
    source = kept_source(home, replace(kept, deltas=(*kept.deltas, delta.digest)))
    additions = additions_of(model.backend.config, source.changes(source.beside))
    digest = digest_json([one.digest for one in source.beside])
    return replace(model, adapter=model.backend.adapter(additions, digest), adapter_digest=digest)


def can_stand_beside(home: Home, kept: Kept, kind: str = "lora") -> None:
    """Raise DeltaError if a delta of that kind can't be served beside this model's weights."""
    kinds = [kind for kind in (get_delta(home, digest).kind for digest in kept.deltas) if kind not in ABILITIES]
    if kind != "lora" or (kinds and kinds[-1] in ("bottleneck", *VIRTUAL)):
        rule = "can't have a lesson beside it: its last delta must come last"
        got, cure = (kinds[-1], "Teach the model without that delta.") if kind == "lora" else (kind, "Lessons are of the kind lora.")
        raise DeltaError(f"model {kept.name}", rule, got, cure)
