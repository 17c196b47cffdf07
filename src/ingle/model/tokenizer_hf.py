"""The tokenizer of a Hugging Face folder: tokenizer.json, and the files beside it about begin, end and chat template."""

import json
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer as FastTokenizer

from ingle.core.config import from_table
from ingle.core.errors import CheckpointError, ConfigError
from ingle.model.fields import Fields, read_json
from ingle.model.tokenizer import FACTS_FILE, TOKENIZER_FILE, Tokenizer, TokenizerFacts, is_panic, make_facts, read_fast


def open_tokenizer(folder: Path) -> Tokenizer:
    """Open the tokenizer that `Tokenizer.save` wrote, or that of a Hugging Face folder. Raises CheckpointError."""
    if not (folder / FACTS_FILE).exists():
        return tokenizer_from_folder(folder)
    table = read_json(folder / FACTS_FILE)
    try:
        facts = from_table(TokenizerFacts, table)
    except ConfigError as error:
        raise CheckpointError(f"{folder / FACTS_FILE}: {error.field}", error.rule, error.got, "Pull the model again.") from error
    return Tokenizer(read_fast(folder / TOKENIZER_FILE), facts)


def tokenizer_from_folder(folder: Path) -> Tokenizer:
    """Read tokenizer.json, tokenizer_config.json, generation_config.json, config.json and chat_template.jinja.

    Raises CheckpointError for a missing or damaged file, and for tokenizers that are neither byte-level nor SentencePiece-style BPE.
    """
    where = str(folder / TOKENIZER_FILE)
    fast = read_fast(folder / TOKENIZER_FILE)
    fast.no_truncation()
    fast.no_padding()
    described = read_json(folder / TOKENIZER_FILE)
    settings = _optional(folder / "tokenizer_config.json")
    facts = TokenizerFacts(
        kind=_kind(described, where),
        eos_ids=_ends(folder, fast, settings),
        bos_id=_id_of(fast, settings.table.get("bos_token")),
        add_bos=_adds_bos(fast, settings),
        space_prefix=_finds(described.get("decoder"), "type", "Strip") or _finds(described.get("decoder"), "type", "Metaspace"),
        unknown_id=_id_of(fast, Fields(described, where).table_of("model").get("unk_token")),
        chat_template=_chat_template(folder, settings),
    )
    return make_facts(fast, facts, where)


def _optional(path: Path) -> Fields:
    return Fields(read_json(path) if path.exists() else {}, str(path))


def _kind(described: dict[str, Any], where: str) -> Literal["bytes", "pieces"]:
    decoder = described.get("decoder")
    model = Fields(described, where).table_of("model").get("type")
    if model == "BPE" and _finds(decoder, "type", "ByteLevel"):
        return "bytes"
    if model == "BPE" and (_finds(decoder, "type", "ByteFallback") or _finds(decoder, "type", "Metaspace")):
        return "pieces"
    raise CheckpointError(where, "must be byte-level BPE or SentencePiece-style BPE", f"{model} with decoder {json.dumps(decoder)[:80]}")


def _finds(value: Any, key: str, wanted: str) -> bool:
    """Return whether `key` is `wanted` somewhere in nested tables and lists."""
    if isinstance(value, dict):
        return value.get(key) == wanted or any(_finds(item, key, wanted) for item in value.values())
    return isinstance(value, list) and any(_finds(item, key, wanted) for item in value)


def _id_of(fast: FastTokenizer, token: Any) -> int | None:
    """Return the id of a token that is given by name, plainly or as the table of an added token."""
    name = token.get("content") if isinstance(token, dict) else token
    id_: int | None = fast.token_to_id(name) if isinstance(name, str) else None
    return id_


def _ends(folder: Path, fast: FastTokenizer, settings: Fields) -> tuple[int, ...]:
    ends = [_id_of(fast, settings.table.get("eos_token"))]
    for name in ("generation_config.json", "config.json"):
        value = _optional(folder / name).table.get("eos_token_id")
        items = value if isinstance(value, list) else [value]
        if any(item is not None and (isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < 2**32) for item in items):
            raise CheckpointError(f"{folder / name}: eos_token_id", "must be a token id or a list of them", repr(value)[:80])
        ends += [item for item in items if item is not None and fast.id_to_token(item) is not None]
    return tuple(dict.fromkeys(end for end in ends if end is not None))


def _adds_bos(fast: FastTokenizer, settings: Fields) -> bool:
    """Return whether a text begins with `bos`. The post-processor decides, because the model was trained with it; the flag is for files
    without one."""
    begin = _id_of(fast, settings.table.get("bos_token"))
    if begin is None:
        return False
    try:
        with_special, without = (fast.encode("a", add_special_tokens=special).ids for special in (True, False))
    except BaseException as error:  # a post-processor may name what the vocabulary lacks
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise CheckpointError(settings.where, "must go with a tokenizer that reads a text", error) from error
    if len(with_special) > len(without):
        return bool(with_special[0] == begin)
    return settings.flag("add_bos_token", False)


def _chat_template(folder: Path, settings: Fields) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        try:
            return file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(str(file), "must be readable UTF-8", error) from error
    beside = _optional(folder / "chat_template.json").table.get("chat_template")  # of models that see; it goes before the tokenizer's own
    value = settings.table.get("chat_template") if beside is None else beside
    if isinstance(value, list):  # several, by name
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default", next(iter(named.values()), None))
    if value is not None and not isinstance(value, str):
        raise CheckpointError(f"{settings.where}: chat_template", "must be a string, or a list of named ones", repr(value)[:80])
    return value
