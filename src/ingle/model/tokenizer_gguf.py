"""The tokenizer in a GGUF file's metadata, rebuilt for the `tokenizers` library.

A GGUF file names its pre-tokenizer (`tokenizer.ggml.pre`); the patterns behind the names are those of the models' own tokenizer.json
files and of llama.cpp's `llama-vocab.cpp`. SentencePiece vocabularies hold scores instead of merges; the merges follow from them.
"""

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from ingle.core.errors import CheckpointError
from ingle.model.fields import Fields
from ingle.model.tokenizer import Tokenizer, TokenizerFacts, is_panic, make_facts

_UNKNOWN, _CONTROL, _USER = 2, 3, 4  # llama.cpp's llama_token_type; 1 is a normal token, 5 an unused one, 6 a byte
_LONGEST_PIECE = 1024
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # fmt: skip
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # fmt: skip
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_GPT_4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _ENDING
    + r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _ENDING
    + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # fmt: skip
_SPLITS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_WORDS,),
    "smollm": (r"\p{N}", _WORDS),
    "llama-bpe": (_LLAMA3,),
    "dbrx": (_LLAMA3,),
    "gpt-4o": (_GPT_4O,),
    "qwen2": (_LLAMA3.replace("{1,3}", ""),),
    "qwen35": (_QWEN_35,),
    "tekken": (_TEKKEN,),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _WORDS, r"\p{N}+", r"[0-9][0-9][0-9]"),
}
_BEGIN = ("llama-bpe", "llama3", "lfm2")
"""Those before which a token of beginning stands, where a file doesn't say."""
PRE_TOKENIZERS = tuple(_SPLITS)
"""Names of the known patterns, each different."""
_SAME_AS = {
    "gpt2": "gpt-2", "phi-2": "gpt-2", "olmo": "gpt-2", "starcoder": "smollm", "refact": "smollm", "command-r": "smollm",
    "codeshell": "smollm", "llama3": "llama-bpe", "llama-v3": "llama-bpe", "stablelm2": "qwen2", "deepseek-r1-qwen": "qwen2",
    "smaug-bpe": "dbrx", "lfm2": "llama-bpe",
}  # fmt: skip


def tokenizer_from_gguf(metadata: Mapping[str, Any], where: str = "GGUF") -> Tokenizer:
    """Return the tokenizer of a GGUF file. Raises CheckpointError for a vocabulary that is missing, inconsistent or of an unknown kind."""
    fields = Fields(metadata, where)
    tokens = fields.texts("tokenizer.ggml.tokens")
    if not tokens:
        raise CheckpointError(f"{where}: tokenizer.ggml.tokens", "is needed, but missing")
    types = fields.numbers("tokenizer.ggml.token_type")
    kinds = [1] * len(tokens) if types is None else types.tolist()
    if len(kinds) != len(tokens):
        raise CheckpointError(f"{where}: tokenizer.ggml.token_type", f"must have {len(tokens)} entries, as the tokens do", len(kinds))
    model = fields.text("tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise CheckpointError(f"{where}: tokenizer.ggml.model", "is not a tokenizer that Ingle knows", model, "Known: gpt2, llama.")
    pre = fields.text("tokenizer.ggml.pre", "default")
    begin = _optional_id(fields, "bos", len(tokens))
    ends = [_optional_id(fields, name, len(tokens)) for name in ("eos", "eot", "eom")]
    prefix = model == "llama" and fields.flag("tokenizer.ggml.add_space_prefix", True)
    try:
        fast = _byte_level(fields, tokens, pre) if model == "gpt2" else _pieces(fields, tokens, kinds, prefix)
        fast.add_special_tokens([_added(t, True) for t, kind in zip(tokens, kinds, strict=True) if kind in (_CONTROL, _UNKNOWN) and t])
        fast.add_tokens([_added(t, False) for t, kind in zip(tokens, kinds, strict=True) if kind == _USER and t])
    except CheckpointError:
        raise
    except BaseException as error:  # the library raises bare Exception, e.g. for a merge of tokens that are not there
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise CheckpointError(f"{where}: tokenizer.ggml", "must be a consistent vocabulary", error) from error
    facts = TokenizerFacts(
        kind="bytes" if model == "gpt2" else "pieces",
        eos_ids=tuple(end for end in ends if end is not None),
        bos_id=begin,
        add_bos=begin is not None and fields.flag("tokenizer.ggml.add_bos_token", model == "llama" or pre in _BEGIN),
        space_prefix=prefix,
        unknown_id=_optional_id(fields, "unknown", len(tokens)) if model == "llama" else None,
        chat_template=fields.text("tokenizer.chat_template", "") or None,
    )
    return make_facts(fast, facts, where)


def _optional_id(fields: Fields, name: str, count: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    if fields.table.get(key) is None:
        return None
    token = fields.whole(key)
    if not 0 <= token < count:
        raise CheckpointError(f"{fields.where}: {key}", f"must be below {count}, the number of tokens", token)
    return token


def _added(text: str, special: bool) -> AddedToken:
    return AddedToken(text, special=special, normalized=False)


def _ids(tokens: list[str]) -> dict[str, int]:
    """Return ids by token; of equal tokens the first counts, as in llama.cpp."""
    return {token: i for i, token in reversed(list(enumerate(tokens)))}


def _byte_level(fields: Fields, tokens: list[str], pre: str) -> FastTokenizer:
    name = _SAME_AS.get(pre, pre)
    if name not in _SPLITS:
        known = ", ".join(sorted({*_SPLITS, *_SAME_AS}))
        raise CheckpointError(f"{fields.where}: tokenizer.ggml.pre", "is not a pre-tokenizer that Ingle knows", pre, f"Known: {known}.")
    merges = []
    for merge in fields.texts("tokenizer.ggml.merges") or []:
        left, space, right = merge.partition(" ")
        if not space:
            raise CheckpointError(f"{fields.where}: tokenizer.ggml.merges", "must hold pairs", repr(merge)[:80])
        merges.append((left, right))
    fast = FastTokenizer(models.BPE(vocab=_ids(tokens), merges=merges, ignore_merges=name in ("llama-bpe", "tekken")))
    if name == "qwen2":
        fast.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in _SPLITS[name]]
    fast.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    fast.decoder = decoders.ByteLevel()
    return fast


def _pieces(fields: Fields, tokens: list[str], kinds: list[int], prefix: bool) -> FastTokenizer:
    """Return SentencePiece BPE, with a space before each stretch of text if `prefix`, as in llama.cpp and Llama 2's tokenizer.json."""
    scores = fields.numbers("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        got = "nothing" if scores is None else len(scores)
        raise CheckpointError(f"{fields.where}: tokenizer.ggml.scores", f"must have {len(tokens)} entries, as the tokens do", got)
    unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind == _UNKNOWN), None)
    normal = {token: float(score) for token, kind, score in zip(tokens, kinds, scores, strict=True) if kind == 1}
    merges = _merges_from_scores(normal, _ids(tokens))
    fast = FastTokenizer(models.BPE(vocab=_ids(tokens), merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    steps: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    fast.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    ending = [decoders.Strip(" ", 1, 0)] if prefix else []
    fast.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *ending])
    return fast


def _merges_from_scores(normal: dict[str, float], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Return every pair of pieces that makes a third, best score first; ties by the ids of the halves, as transformers does."""
    ways, longest = [], max(map(len, normal), default=0)
    if longest > _LONGEST_PIECE:
        raise CheckpointError("tokenizer.ggml.tokens", f"must have at most {_LONGEST_PIECE} characters each", longest)
    for piece, score in normal.items():
        halves = [(piece[:at], piece[at:]) for at in range(1, len(piece)) if piece[:at] in normal and piece[at:] in normal]
        ways += [(-score, ids[piece], ids[left], ids[right], left, right) for left, right in halves]
    return [(left, right) for *_, left, right in sorted(ways)]
