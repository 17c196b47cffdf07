"""Self-generated dialogues about long texts: the hybrid learns to give the answers of its own original.

Facts teach a memory to find a single sentence again, plain texts to go on with them. Neither holds a request, and a model that learnt
from these alone says little about a long text as a whole (LOG.md). So requests are put to the original before the lessons begin, and the
hybrid follows its predictions for its own answers. (A teacher's own answers, not given ones: Kim and Rush 2016, arXiv 1606.07947.)

Several requests follow on one text: most of a lesson's cost is reading the text, and each answer adds to what it teaches.
"""

import random
from collections.abc import Callable
from dataclasses import asdict, replace

from ingle.core.digest import digest_json
from ingle.core.message import Message, Request, Sampling
from ingle.engine.answer import Session, answer
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.source import kept_source
from ingle.home.fetch import FetchProgress, silent
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.measure.finished import Finished
from ingle.model.template import has_template
from ingle.model.tokenizer import Tokenizer
from ingle.train.encode import Document, Encoder
from ingle.train.examples import Record

Ask = Callable[[Request], tuple[str, bool]]
"""Returns the answer, and whether the model ended it by itself."""
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
_TURNS = 3
"""Requests about one text, at most."""
_TEMPERATURE = 0.7
"""Temperature of answers: the model's predictions are learnt, so its answers need not be the likeliest."""


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
