"""Packs against the files that they were made of."""

from collections.abc import Iterator
from pathlib import Path

from ingle.core.errors import IngleError
from ingle.engine.lean import file_fault
from ingle.engine.packing import check_pack, is_outdated, packed_as, read_pack
from ingle.engine.source import Progress, Source, kept_source, merged_checkpoint, pack_folders, silent, source_tokenizer
from ingle.home.kept import list_models
from ingle.home.lean import read_lean
from ingle.home.place import Home
from ingle.model.tokenizer_hf import open_tokenizer


def verify_packs(home: Home, progress: Progress = silent) -> Iterator[tuple[str, str]]:
    """Yield (model, fault) for every pack of a kept model that is not what was packed, or not what the model's files give.

    Packs that another version of Ingle made are never served, and passed over; so is a model whose own files are at fault. Where deltas are
    merged, matrices are only compared with their digests: another machine may round a sum differently.
    """
    checked = set[Path]()
    for kept in list_models(home, lambda *_: None):
        try:
            source = kept_source(home, kept)
        except IngleError:
            continue
        folders = [] if source.packs in checked else pack_folders(source)
        checked.add(source.packs)
        for folder in folders:
            if fault := _fault(source, folder, progress):
                yield kept.name, fault


def _fault(source: Source, folder: Path, progress: Progress) -> str:
    """Return the fault of a pack, or nothing."""
    if is_outdated(folder):
        return ""
    info = read_pack(folder, source.digest)
    if info is None:
        return f"{folder / 'pack.json'} is damaged; the weights are packed again at the next start"
    try:
        check_pack(folder, info)
    except IngleError as error:
        return str(error)
    try:
        checkpoint = merged_checkpoint(source)
        words = source_tokenizer(source, checkpoint)
    except IngleError:  # told where the base's own files are read
        return ""
    served = open_tokenizer(folder)
    if (served.facts, served.fast.to_str()) != (words.facts, words.fast.to_str()):
        return f"{folder} has another tokenizer or chat template than the model's own files"
    if info.config != checkpoint.config:
        return f"{folder} has another config than the model's own files"
    if source.merged:
        return ""
    if (lean := read_lean(folder)) is not None and (fault := file_fault(folder, lean, progress)):
        return fault
    again = packed_as(
        checkpoint, source.digest, info.format, progress=lambda done, of: progress(f"packing {source.name} to compare", done, of)
    )
    if (again.places, again.files[0]) != (info.places, info.files[0]):
        return f"{folder} has other weights than the model's own files"
    return ""
