"""Lessons of a hybrid: plain texts, facts that are said and asked for, texts that are repeated, and dialogues about texts.

A window alone can't do facts and copies, so they teach the memory to look back. Plain texts teach it to leave the rest alone, dialogues to
say what a text is about (`hybridize.hybrid_lessons`). Everything comes from the training parts of suites. Facts are made of words of these
texts, in sentences of their own: no planted fact of a suite is ever taught, nor the request of a suite of summaries.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import ConfigError
from ingle.core.message import Message, Request, Sampling
from ingle.core.progress import Counted, FetchProgress, silent
from ingle.core.spec import LayerSpec, ModelConfig, transformer_layers
from ingle.engine.answer import Session, answer
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.hybridize.hybrid_settings import Lesson
from ingle.measure.subjects import Finished
from ingle.measure.suites import Fact, find_texts, training_rows
from ingle.model.module import CausalLM
from ingle.model.module_parts import Attend, PackedRows, RecurrentMemory
from ingle.model.template import has_template
from ingle.model.tokenizer import Tokenizer
from ingle.train.corpus import Corpus, Wanted, corpus_of
from ingle.train.example_files import Document, Encoder, Record
from ingle.train.forward import attend_on, read_packed
from ingle.train.objectives import States, TokenLoss
from ingle.train.packing import Batch

# Self-generated dialogues about long texts: the hybrid learns to give the answers of its own original.
# Facts teach a memory to find a single sentence again, plain texts to go on with them. Neither holds a request, and a model that learnt
# from these alone says little about a long text as a whole (LOG.md). So requests are put to the original before the lessons begin, and the
# hybrid follows its predictions for its own answers. (A teacher's own answers, not given ones: Kim and Rush 2016, arXiv 1606.07947.)
# Several requests follow on one text: most of a lesson's cost is reading the text, and each answer adds to what it teaches.


Ask = Callable[[Request], tuple[str, bool]]  # returns the answer, and whether the model ended it by itself
FIRST = (
    "What is this text about?\n\n{text}",
    "{text}\n\nWhat happens here, in a few words?",
    "Read this and tell me who is named in it, and why.\n\n{text}",
    "{text}\n\nGive me the three most important points.",
    "I found this:\n\n{text}\n\nExplain it to a child.",
    "{text}\n\nSummarise the text above.",
    "Can you make this shorter for me?\n\n{text}",
    "Here is a text.\n\n{text}\n\nWhat is the most surprising thing that it says?",
    "{text}\n\nWrite a headline for this.",
    "Tell me in my own words what I have to know from this:\n\n{text}",
)
NEXT = (
    "Now in one sentence.",
    "Who or what is it mainly about?",
    "Say it in simpler words.",
    "Which numbers and dates are given?",
    "What came first, and what came of it?",
    "Make a list of it.",
    "Why does it matter?",
    "Give it a title.",
    "What is left open?",
    "How does it end?",
    "Tell me more about the beginning.",
    "Is anybody quoted? What do they say?",
)
_TURNS = 3  # requests about one text, at most
_TEMPERATURE = 0.7  # temperature of answers: the model's predictions are learnt, so its answers need not be the likeliest


def make_dialogue(tokenizer: Tokenizer, ask: Ask, text: str, tokens: int, draw: random.Random) -> Document | None:
    """Put requests about a text; return them with the answers, which are learnt, in at most `tokens` tokens. None if there is no answer.

    A model without a chat template is asked one thing, in plain text.
    """
    chat = has_template(tokenizer)
    first, *others = draw.choice(FIRST).replace("{text}", text), *draw.sample(NEXT, _TURNS - 1)
    seeds = [draw.randrange(2**31) for _ in range(_TURNS)]  # all are drawn here: later draws must not depend on an answer
    messages: list[Message] = []
    ended = True
    for request, seed in zip([first, *others] if chat else [f"{first}\n\n"], seeds, strict=False):
        messages.append(Message.of("user", request))
        question = Request(messages=tuple(messages)) if chat else Request(prompt=messages[0].text)
        reply, ended = ask(replace(question, max_tokens=_answer_tokens(tokens), sampling=Sampling(temperature=_TEMPERATURE, seed=seed)))
        messages.append(Message.of("assistant", reply))
        if not ended or not reply.strip():
            break
    turns = tuple({"role": message.role, "content": message.text} for message in messages)
    record = Record("dialogue", "chat", turns) if chat else Record("dialogue", "completion", messages[0].text, (messages[1].text,))
    documents = Encoder(tokenizer, tokens).documents(record)
    if not documents:
        return None
    ids, learnt = documents[-1].ids[:tokens], documents[-1].answer.copy()
    if not ended:  # the answer was cut, so the token that ends it is not the model's
        learnt[learnt.nonzero()[0][-1]] = False
    return Document(ids, learnt[:tokens]) if learnt[:tokens].any() else None


def _answer_tokens(tokens: int) -> int:
    """Longest answer in a document of so many tokens."""
    return max(8, min(128, tokens // 16))


def text_tokens(tokens: int, draw: random.Random) -> int:
    """Length of the text in a document of so many tokens; the dialogue has the rest."""
    return draw.randrange(tokens // 4, tokens * 2 // 3)


def nobody_answers(_request: Request) -> tuple[str, bool]:
    """Give no answer: for lessons without dialogues."""
    return "", True


def answers_of(home: Home, kept: Kept, progress: FetchProgress = silent) -> Ask:
    """Return a function that asks a kept model. Answers are kept in the home's cache; the first new one opens the model."""
    finished, opened = Finished(home, "talks", kept.digest), list[tuple[LanguageModel, Session]]()

    def ask(request: Request) -> tuple[str, bool]:
        key = digest_json([request.prompt or [[m.role, m.text] for m in request.messages], request.max_tokens, asdict(request.sampling)])
        if (row := finished.get(key)) is None:
            if not opened:
                model = open_model(kept_source(home, kept), progress=progress)
                opened.append((model, Session(model.backend.new_state())))
            chunks = list(answer(opened[0][0], request, opened[0][1]))
            row = {"text": "".join(chunk.text for chunk in chunks), "ended": chunks[-1].finish == "stop"}
            finished.add(key, row)
        return row["text"], row["ended"]

    return ask


Sources = Sequence[Sequence[str]]  # texts of each source
TOKENS_A_FACT = 128  # tokens of a document for each fact in it: only answers are learnt, and reading the rest costs the same


def read_texts(home: Home, suites: Sequence[str], progress: FetchProgress) -> Sources:
    """Read the training parts of these suites of texts. Raises ConfigError and NotKept for others, and the errors of fetching them."""
    chosen = [find_texts(name, "lessons.suites") for name in suites]
    return [[row["text"] for row in training_rows(suite, home, progress)] for suite in chosen]


def set_aside(texts: Sources) -> tuple[Sources, Sources]:
    """(to learn from, held out): a twentieth of each source's texts, by their hashes, is held out. A source of one text is learnt."""
    learnt, held_out = [], []
    for source in texts:
        ordered = sorted(set(source), key=lambda text: digest_bytes(text.encode()))
        aside = set(ordered[: -(-len(ordered) // 20)]) if len(ordered) > 1 else set()
        learnt.append([text for text in source if text not in aside])
        held_out.append([text for text in source if text in aside])
    return learnt, [source for source in held_out if any(text.strip() for text in source)]


def make_lessons(
    tokenizer: Tokenizer, parts: Sequence[tuple[Sources, int]], tokens: int, seed: int, kinds: Sequence[Lesson],
    ask: Ask = nobody_answers, told: Counted = silent,
) -> Corpus:  # fmt: skip
    """Make documents of `tokens` tokens (dialogues: at most): for each part so many, of these kinds in turn, from all its sources alike.

    They begin as the model's prompts do, with the token that begins a text, if there is one. `ask` answers in dialogues; `told` hears after
    each document how many are done, and of how many. Raises ConfigError.
    """
    draw = random.Random(seed)
    begin = np.array(tokenizer.encode_prompt("")[:1], np.int32)
    documents, count = list[Document](), sum(count for _, count in parts)
    for texts, share in parts:
        material = Material(tokenizer, texts, draw, ask)
        for _, kind in zip(range(share), cycle(kinds), strict=False):
            documents.append(_with_start(begin, _MAKERS[kind](material, tokens - len(begin), draw)))
            told(len(documents), count)
    return corpus_of("answers", [(str(i), -1, (document,)) for i, document in enumerate(documents)])


def _with_start(begin: npt.NDArray[np.int32], one: Document) -> Document:
    """Return the document after these tokens, unless it begins with them itself, as a dialogue does."""
    if one.ids[: len(begin)].tolist() == begin.tolist():
        return one
    return Document(np.append(begin, one.ids), np.append(begin < 0, one.answer))


class Material:
    """Texts of all sources, as many tokens of one as of another: the next text is always from the source that has given least."""

    def __init__(self, tokenizer: Tokenizer, texts: Sources, draw: random.Random, ask: Ask = nobody_answers) -> None:
        """Raises ConfigError where a source is empty."""
        if not all(any(text.strip() for text in source) for source in texts) or not texts:
            raise ConfigError("texts", "must hold something to learn from in each source", [len(source) for source in texts])
        self.tokenizer, self.ask = tokenizer, ask
        self._texts, self._given = [_shuffled(source, draw) for source in texts], [0] * len(texts)
        self._stream = self._running()

    def take(self, count: int) -> list[int]:
        """Take the next tokens, whatever text they are of."""
        return [token for token, _ in zip(self._stream, range(count), strict=False)]

    def passage(self, count: int) -> str:
        """Take whole texts of one source, cut after so many tokens."""
        least, ids = self._given.index(min(self._given)), list[int]()
        while len(ids) < count:
            ids += self._next(least)
        return self.tokenizer.decode(ids[:count]).strip()

    def _running(self) -> Iterator[int]:
        while True:
            yield from self._next(self._given.index(min(self._given)))

    def _next(self, source: int) -> list[int]:
        ids = self.tokenizer.encode(f"{next(self._texts[source])}\n\n")
        self._given[source] += len(ids)
        return ids


def _shuffled(source: Sequence[str], draw: random.Random) -> Iterator[str]:
    """All texts in random order, again and again."""
    while True:
        yield from draw.sample(source, len(source))


def _plain(material: Material, tokens: int, _draw: random.Random) -> Document:
    """A plain text. Every token is learnt but the first."""
    return Document(np.array(material.take(tokens), np.int32), np.arange(tokens) > 0)


def _facts(material: Material, tokens: int, draw: random.Random) -> Document:
    """Facts in the first half, asked for in another order after it, with text between all of them; the answers are learnt."""
    tokenizer = material.tokenizer
    facts = _different_facts(max(1, tokens // TOKENS_A_FACT), tokenizer.decode(material.take(600)).split(), draw)
    statements = [tokenizer.encode(f" {fact.said}") for fact in facts]
    questions = [tokenizer.encode(f"\n\n{fact.asked}") for fact in facts]
    answers = [tokenizer.encode(f"\n\n{fact.asked} {fact.answer}")[len(ask) :] for fact, ask in zip(facts, questions, strict=True)]
    order = draw.sample(range(len(facts)), len(facts))
    pieces = [(part, False) for part in statements] + [piece for i in order for piece in ((questions[i], False), (answers[i], True))]
    room = max(0, tokens - sum(len(part) for part, _ in pieces))
    gap = room // (2 * len(facts))
    ids: list[int] = []
    marks: list[bool] = []
    for part, marked in pieces:
        between = [] if marked else material.take(gap)
        ids += [*between, *part]
        marks += [False] * len(between) + [marked] * len(part)
    return Document(np.array(ids[:tokens], np.int32), np.array(marks[:tokens]))


# Kinds of answers, and the words before them. After a word that stands everywhere (the, a, of) an answer is found only by the words before
# that one, so some sentences end in one.
_SENTENCES = (
    ("number", "The {word} of {title} has the number"),
    ("number", "Whoever wants to reach {title} {title} dials"),
    ("number", "In grams, the {word} from {title} weighs"),
    ("name", "The {word} near {title} was sold to"),
    ("name", "First to see the {word} was"),
    ("words", "On the back of the {word} from {title} was written:"),
    ("words", "What {title} {title} answered was this: the"),
    ("words", "The last line of the {word} begins with a"),
    ("words", "Behind the {word} {title} had hidden the"),
    ("words", "{title} asked for the {word} of"),
    ("word", "{word} ="),
    ("word", "The password for the {word} is"),
)


def _different_facts(count: int, text: Sequence[str], draw: random.Random) -> list[Fact]:
    """Facts in the words of a text, no two with the same question: `count` of them, or fewer where the text has few words."""
    words = [word for word in text if re.fullmatch("[A-Za-z]{4,9}", word)] or ["word"]
    drawn, facts = (_fact(text, words, draw) for _ in range(20 * count)), dict[str, Fact]()
    while len(facts) < count and (fact := next(drawn, None)):
        facts.setdefault(fact.asked, fact)
    return list(facts.values())


def _fact(text: Sequence[str], words: Sequence[str], draw: random.Random) -> Fact:
    """A fact from `_SENTENCES`: single words out of `words`, running ones out of `text`."""

    def title() -> str:
        return draw.choice(words).title()

    kind, sentence = draw.choice(_SENTENCES)
    question = re.sub(r"\{(\w+)\}", lambda blank: title() if blank[1] == "title" else draw.choice(words).lower(), sentence)
    size, start = draw.randrange(4, 9), draw.randrange(len(text) or 1)
    answers = {
        "number": str(draw.randrange(100, 1_000_000)),
        "name": f"{title()} {title()}",
        "words": " ".join(text[start : start + size]) or "nothing",
        "word": draw.choice(words),
    }
    return Fact(kind, f"{question} {answers[kind]}.", question, answers[kind])


def _copy(material: Material, tokens: int, draw: random.Random) -> Document:
    """A piece of text, other texts, and the piece again, which is learnt but for its beginning."""
    size = draw.randrange(tokens // 16, tokens // 4)
    piece, again = material.take(size), material.tokenizer.encode("\n\n")
    between = material.take(tokens - 2 * size - len(again))
    ids = [*piece, *between, *again, *piece]
    return Document(np.array(ids, np.int32), np.arange(len(ids)) >= len(ids) - size + min(8, size // 2))


def _dialogue(material: Material, tokens: int, draw: random.Random) -> Document:
    """A dialogue about a text; another text where the model gives no answer."""
    for _ in range(_TEXTS_TRIED):
        if dialogue := make_dialogue(material.tokenizer, material.ask, material.passage(text_tokens(tokens, draw)), tokens, draw):
            return dialogue
    cure = "Leave asked out of lessons.kinds and lessons.long_kinds."
    raise ConfigError(
        "lessons.kinds", f"The kind `asked` needs a model that answers, and this one gave no answer to {_TEXTS_TRIED} requests", "", cure
    )


_TEXTS_TRIED = 20
_MAKERS: dict[Lesson, Callable[[Material, int, random.Random], Document]]
_MAKERS = {"plain": _plain, "facts": _facts, "copy": _copy, "asked": _dialogue}


# Teaching of memories: first to give each layer's full attention, then the whole original's predictions.
# The first lesson is local: the original runs once over a batch, without gradients, and each layer's memory is compared on the spot, on the
# original's own activations. So nothing is propagated through layers, and no error of one layer disturbs the next. The second repairs the
# errors that add up. (Mixers first, then logits: arXiv 2408.10189, 2606.16429; the first alone leaves recall broken.)


def original_of(hybrid: CausalLM) -> CausalLM:
    """The model with full attention everywhere. Its parameters are the hybrid's own, so they are in memory once."""
    config = hybrid.config
    with torch.device("meta"):
        original = CausalLM(config.with_layers(transformer_layers(len(config.layers), config.num_kv_heads)))
    shared = dict(hybrid.named_parameters(remove_duplicate=False))
    for name, _ in list(original.named_parameters(remove_duplicate=False)):
        owner, _, part = name.rpartition(".")
        setattr(original.get_submodule(owner), part, shared[name])
    return original.eval()


class Mixers:
    """Objective: each layer's mixer, after its output projection, gives full attention's output; squared error over the target's square.

    Terms are layers × batches, so the loss is the mean share of the target that is missed.
    """

    wanted: Wanted = "answers"
    name = "mixers of the original"

    def __init__(self, original: CausalLM) -> None:
        """`original`: see `original_of`."""
        self._layers: Any = original.model.layers
        self._embed = original.model.embed_tokens

    def __call__(self, module: CausalLM, states: States, batch: Batch) -> TokenLoss:
        """See `ingle.train.objectives.Objective`. The states are not asked for: layers read the original's states."""
        attend, losses = attend_on(batch.ids.device, batch.edges), list[Tensor]()
        with torch.no_grad():
            x = self._embed(batch.ids)
            cos, sin = module.angles(batch.positions, x.dtype)
            layers: Any = module.model.layers
            for theirs, mine in zip(self._layers, layers, strict=True):
                watch = attend if mine.self_attn.memory is None else Watching(attend, mine.self_attn, batch.edges, batch.tokens, losses)
                x = theirs(x, cos, sin, PackedRows(watch, batch.edges, read=read_packed))
        return TokenLoss(torch.stack(losses).sum(), len(losses))


@dataclass(frozen=True, slots=True)
class Watching:
    """Full attention. Meanwhile a hybrid's layer reads the same input, and its distance from full attention is noted."""

    inner: Attend
    layer: Any  # attention of the hybrid's layer
    bounds: tuple[int, ...]
    tokens: int  # tokens of documents; padding doesn't count
    losses: list[Tensor]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor, spec: LayerSpec, some: bool) -> Tensor:
        """See `ingle.model.module.Attend`."""
        full = self.inner(q, k, v, cos, sin, spec, some)
        window = self.inner(q, k, v, cos, sin, self.layer.spec, some)
        target = nn.functional.linear(full.flatten(1), self.layer.o_proj.weight)[: self.tokens].float()
        with torch.enable_grad():
            remembered = self.layer.remember(window, q, k, v, PackedRows(self.inner, self.bounds, read=read_packed), some)
            missed = nn.functional.linear((remembered - full).flatten(1), self.layer.o_proj.weight)[: self.tokens].float()
            self.losses.append(missed.square().sum() / target.square().sum())
        return full


def memories_of(module: CausalLM) -> dict[str, nn.Parameter]:
    """The parameters of all memories, by name."""
    return {
        f"{name}.{part}": parameter
        for name, memory in module.named_modules()
        if isinstance(memory, RecurrentMemory)
        for part, parameter in memory.named_parameters()
    }


def hybrid_module(original: CausalLM, layers: tuple[LayerSpec, ...]) -> CausalLM:
    """A hybrid of the original's own parameters, with new memories that have learnt nothing yet."""
    config: ModelConfig = original.config.with_layers(layers)
    with torch.device("meta"):
        hybrid = CausalLM(config)
    shared = dict(original.named_parameters(remove_duplicate=False))
    for name, _ in list(hybrid.named_parameters(remove_duplicate=False)):
        if name in shared:
            owner, _, part = name.rpartition(".")
            setattr(hybrid.get_submodule(owner), part, shared[name])
    layers_made: Any = hybrid.model.layers
    for layer in layers_made:
        if layer.self_attn.memory is not None:
            layer.self_attn.memory = memory = RecurrentMemory(config, layer.self_attn.memory.groups).to(original.lm_head.weight.device)
            memory.begin()
    return hybrid.eval()
