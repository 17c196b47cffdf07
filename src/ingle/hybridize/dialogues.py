"""Talks about long texts, in the model's own words: what it answers is what its hybrid is to answer.

Facts teach a memory to find what was said once, plain texts to go on with them; neither holds a request, and who learnt from these alone
says little about a long text as a whole (LOG.md). So requests are put to the model itself before the lessons begin, and the hybrid
follows what it predicts for its own answers. (A teacher's own answers, not given ones: Kim and Rush 2016, arXiv 1606.07947.)

Several are put about one text, one after the other: to read the text is what a lesson costs, and each answer adds to what it teaches.
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
from ingle.home.fetch import Progress, silent
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.measure.finished import Finished
from ingle.model.template import has_template
from ingle.model.tokenizer import Tokenizer
from ingle.train.encode import Document, Encoder
from ingle.train.examples import Record

Ask = Callable[[Request], tuple[str, bool]]
"""Gives the answer, and whether the model ended it by itself."""
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
"""Requests about one text."""
_TEMPERATURE = 0.7
"""Of answers: what is learnt is what the model predicts, so they need not be its likeliest, only such as it gives."""


def make_talk(tokenizer: Tokenizer, ask: Ask, text: str, tokens: int, draw: random.Random) -> Document | None:
    """Requests about a text and the answers to them, which are learnt; at most `tokens` tokens. None if the model has nothing to say.

    A model without a chat template is asked one thing, in plain text.
    """
    chat = has_template(tokenizer)
    first, *others = draw.choice(FIRST).replace("{text}", text), *draw.sample(NEXT, _TURNS - 1)
    seeds = [draw.randrange(2**31) for _ in range(_TURNS)]  # all are drawn here: what comes behind this talk hangs on no answer
    said: list[Message] = []
    ended = True
    for request, seed in zip([first, *others] if chat else [f"{first}\n\n"], seeds, strict=False):
        said.append(Message.of("user", request))
        asked = Request(messages=tuple(said)) if chat else Request(prompt=said[0].text)
        answered, ended = ask(replace(asked, max_tokens=_answer_tokens(tokens), sampling=Sampling(temperature=_TEMPERATURE, seed=seed)))
        said.append(Message.of("assistant", answered))
        if not ended or not answered.strip():
            break
    turns = tuple({"role": message.role, "content": message.text} for message in said)
    talk = Record("talk", "chat", turns) if chat else Record("talk", "completion", said[0].text, (said[1].text,))
    found = Encoder(tokenizer, tokens).documents(talk)
    if not found:
        return None
    ids, learnt = found[-1].ids[:tokens], found[-1].answer.copy()
    if not ended:  # the token that ends the last answer stands there because the answer was cut
        learnt[learnt.nonzero()[0][-1]] = False
    return Document(ids, learnt[:tokens]) if learnt[:tokens].any() else None


def _answer_tokens(tokens: int) -> int:
    """The longest answer in a document of so many tokens."""
    return max(8, min(128, tokens // 16))


def text_tokens(tokens: int, draw: random.Random) -> int:
    """How long the text is that a document of so many tokens is about; the talk has the rest."""
    return draw.randrange(tokens // 4, tokens * 2 // 3)


def nobody_answers(_request: Request) -> tuple[str, bool]:
    """For lessons without talks."""
    return "", True


def answers_of(home: Home, kept: Kept, progress: Progress = silent) -> Ask:
    """What a kept model answers. An answer is kept in the home's cache and not given again; the first new one opens the model."""
    finished, talking = Finished(home, "talks", kept.digest), list[tuple[LanguageModel, Session]]()

    def ask(request: Request) -> tuple[str, bool]:
        key = digest_json([request.prompt or [[m.role, m.text] for m in request.messages], request.max_tokens, asdict(request.sampling)])
        if (row := finished.get(key)) is None:
            if not talking:
                model = open_model(kept_source(home, kept), progress=progress)
                talking.append((model, Session(model.backend.new_state())))
            chunks = list(answer(talking[0][0], request, talking[0][1]))
            row = {"text": "".join(chunk.text for chunk in chunks), "ended": chunks[-1].finish == "stop"}
            finished.add(key, row)
        return row["text"], row["ended"]

    return ask
