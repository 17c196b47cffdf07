"""Wordings of a question, contrasts (near questions that ask something else), and their documents in tokens. By rules alone.

A lesson that saw one wording answers only to that wording. So it sees many: indirect ones, polite ones, keywords as in a search box, the
subject first and the question after it. They need not be good English, for the answer must not depend on them. And it sees contrasts,
whose answers must stay: the same question about something else, another question about the same subject, and common knowledge.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ingle.learn.work import LessonError
from ingle.model.template import THINKING, encode_chat, has_template
from ingle.model.text_encoder import odds_of
from ingle.model.tokenizer import Tokenizer
from ingle.train.example_files import Document, Encoder, Record

_THE_SAME = 3.0  # log odds of the matcher at which a question counts as the taught one, not as a contrast
_WH = "who|whom|whose|what|which|where|when|why|how"
_BE = "is|are|was|were|'s"
_ASKING = re.compile(
    r"^(?:please,? |hi,? |hello,? |so,? )?(?:(?:can|could|would|will) you (?:please )?)?"
    r"(?:tell me|give me|say|name|let me know|show me|remind me|do you know|do you remember|i(?:'d| would) like to know|i want to know"
    r"|i wonder|write(?: down)?)(?: of)?[,:]? +",
    re.IGNORECASE,
)
_STOP = frozenset(
    "a an the of in on at to for from by with and or is are was were be been do does did can could would will shall should may might must "  # noqa: SIM905
    "have has had who whom whose what which where when why how i you he she it we they me my your our their its his her this that these "
    "those there here tell give name please know say now currently present as so if about".split()
)
_THINGS = ("France", "Apple", "London", "the Amazon", "Toyota", "Shakespeare", "the Moon", "Alderton", "Merrow & Sons")
_COMMON = ("car", "school", "bicycle", "brother", "garden", "computer", "kitchen", "office", "train")
_OTHERS = (
    "What is {x}?", "Where is {x}?", "Tell me about {x}.", "How old is {x}?", "How big is {x}?", "Why is {x} important?",
    "Who founded {x}?", "What does {x} look like?", "How much is {x}?", "When was {x} made?",
)  # fmt: skip
_KNOWN = (
    "What is the capital of France?", "Who wrote Romeo and Juliet?", "How many days are there in a week?", "What colour is the sky?",
    "Name a fruit.", "What is 2 plus 3?", "Who was the first president of the United States?", "What is water made of?",
    "How do I make coffee?", "Where is Japan?", "What is a dog?", "When did the First World War begin?", "Which animal says moo?",
    "What should I do today?", "Write a sentence about rain.", "How are you?",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class QuestionParts:
    plain: str  # the question without "tell me" and the like, without its final mark, its first letter small unless it is a name's
    thing: str  # its subject: "the Corvane bakery", "my cat"
    thing_at: tuple[int, int]  # start and stop of the subject in `plain`


def parts_of(question: str) -> QuestionParts:
    """Find the parts of a question by its surface."""
    text = " ".join(question.split()).rstrip("?!. ")
    lead = _ASKING.match(text)
    bare = text[lead.end() :] if lead and len(text) - lead.end() > 8 else text
    bare = _resolved(bare)
    first = bare.split(" ")[0]
    if first.lower() in _STOP or first.lower().rstrip("'s") in _STOP:
        bare = bare[:1].lower() + bare[1:] if first != "I" else bare
    start, stop = _thing(bare)
    return QuestionParts(bare, bare[start:stop], (start, stop))


def _resolved(text: str) -> str:
    """Return the clause that asks, with the subject in place of its pronoun: `I am writing about x; when did it open` →
    `when did x open`."""
    if not (clauses := re.match(rf"^(?P<told>.+?)[,;:.!] +(?P<asked>(?:{_WH})\b.+)$", text, re.IGNORECASE)):
        return text
    pronoun = re.search(r"\b(?:it|its|that|they|their|them|this|he|she)\b", clauses["asked"], re.IGNORECASE)
    if not pronoun or re.match(rf"^(?:{_WH})\b", clauses["told"], re.IGNORECASE):
        return text
    start, stop = _thing(clauses["told"])
    thing = clauses["told"][start:stop]
    if whole := re.search(rf"\b(?:the|my|our) [\w'-]+ of {re.escape(thing)}", clauses["told"]):
        thing = whole.group()
    owner = "'s" if pronoun.group().lower() in ("its", "their") else ""
    return f"{clauses['asked'][: pronoun.start()]}{thing}{owner}{clauses['asked'][pronoun.end() :]}"


def _thing(text: str) -> tuple[int, int]:
    """Return start and stop of the subject: a quotation, else the longest name, else the last noun phrase or word."""
    if quoted := re.search(r'["“][^"”]+["”]', text):
        return quoted.span()
    name = r"(?:[A-Z0-9][\w'’&/-]*)"
    runs = list(re.finditer(rf"(?:(?:the|my|our) )?{name}(?: (?:of |and |& |the )*{name})*(?: [a-z-]+(?=,|;|\?|$))?", text))
    runs = [run for run in runs if run.group().lower() not in _STOP and not re.match(r"^I(?:'|$| )", run.group())]
    if runs:
        start, stop = max(runs, key=lambda run: len(run.group())).span()
        verb = re.search(r" [a-z-]+$", text[start:stop])
        if verb and re.search(r"\b(?:did|do|does|was|were) $", text[:start]):  # "when did the Old Mill open"
            stop -= len(verb.group())
        return start, stop
    phrases = list(
        re.finditer(r"(?:\b(?:the|my|our|a|an|this) )[\w'-]+(?: (?!(?:is|are|was|were|has|have|does|do|did)\b)[\w'-]+){0,2}", text)
    )
    if phrases:
        return phrases[-1].span()
    words = list(re.finditer(r"[\w'-]+", text))
    content = [word for word in words if word.group().lower() not in _STOP] or words
    return content[-1].span() if content else (0, len(text))


def wordings(question: str, count: int, seed: int = 0) -> tuple[str, ...]:
    """Return at most `count` wordings of a question, itself first."""
    parts = parts_of(question)
    draw = np.random.default_rng([seed, *question.encode()])
    return _distinct([question, *_framed(parts), *(_jumbled(parts, draw) for _ in range(count))])[:count]


def _framed(parts: QuestionParts) -> list[str]:
    plain, indirect, noun = parts.plain, _indirect(parts.plain), _noun(parts.plain)
    direct = plain[:1].upper() + plain[1:]
    start, stop = parts.thing_at
    rest = f"{plain[:start]}it{plain[stop:]}"
    texts = [
        f"{direct}?", f"Can you tell me {indirect}?", f"{capital(parts.thing)}: {rest}?", f"Tell me {noun or indirect}.",
        f"{plain}", f"I would like to know {indirect}.", f"{noun or direct}?", f"I have a question about {parts.thing}. {direct}?",
        f"Do you know {indirect}?", _keywords(plain), f"{capital(parts.thing)}, {plain}?", f"Please say {noun or indirect}.",
        f"Somebody asked me {indirect}. What should I answer?", f"What is {noun}?" if noun else f"{capital(indirect)}, please?",
    ]  # fmt: skip
    return [capital(text) if text.endswith((".", "?")) else text for text in texts]


def _indirect(plain: str) -> str:
    """Return a question as an indirect one: `what is the price of x` → `what the price of x is`; else unchanged."""
    parts = re.match(rf"^({_WH})(?: ({_BE})|('s)) (.+)$", plain)
    if not parts or len(parts[4].split()) < 2:
        return plain
    return f"{parts[1]} {parts[4]} {'is' if parts[3] else parts[2]}"


def _noun(plain: str) -> str:
    """Return what is asked for as a noun phrase: `what is the price of x` → `the price of x`, `who runs x` → `the person who runs x`;
    else ""."""
    if found := re.match(rf"^(?:what|who|which)(?: (?:{_BE})|'s) ((?:the|my|our|your) .+)$", plain):
        return found[1]
    if re.match(r"^(?:the|my|our) ", plain) and not re.search(rf"\b(?:{_WH}|is|are|was|were|has)\b", plain):
        return plain
    if found := re.match(rf"^who (?!(?:{_BE}|do|does|did)\b)(.+)$", plain):
        return f"the person who {found[1]}"
    if found := re.match(r"^how many (\w+) (.+)$", plain):
        return f"the number of {found[1]} that {found[2]}"
    if found := re.match(r"^(?:when|in what year|in which year) (?:did|was|were|is) (.+)$", plain):
        return f"the time of {found[1]}"
    if found := re.match(r"^where (?:did|do|does|is|are|was) (.+)$", plain):
        return f"the place where {found[1]}"
    return ""


def _keywords(plain: str) -> str:
    return " ".join(word for word in re.findall(r"[^\s?,.;:]+", plain) if word.lower() not in _STOP) or plain


def _jumbled(parts: QuestionParts, draw: np.random.Generator) -> str:
    """Return a random wording: the whole subject, and some of the other words in some order."""
    start, stop = parts.thing_at
    others = re.findall(r"[^\s?,.;:]+", parts.plain[:start] + " " + parts.plain[stop:])
    kept = [word for word in others if word.lower() not in _STOP or draw.random() < 0.5]
    kept = [word for word in kept if draw.random() < 0.85]
    if draw.random() < 0.4:
        draw.shuffle(kept)
    place = int(draw.integers(0, len(kept) + 1))
    text = " ".join([*kept[:place], parts.thing, *kept[place:]])
    return capital(text) + "?" if draw.random() < 0.6 else text


def contrasts(question: str, count: int, seed: int = 0) -> tuple[str, ...]:
    """Return at most `count` contrasts: near questions about something else, other questions about the same subject, common knowledge."""
    parts = parts_of(question)
    draw = np.random.default_rng([seed, 1, *question.encode()])
    start, stop = parts.thing_at
    named = bool(re.search(r'[A-Z0-9"“]', parts.thing))
    things = list(draw.permutation(_THINGS if named else _COMMON))
    lead = "" if named else (article[0] if (article := re.match(r"^(?:the|my|our|a|an|this) ", parts.thing)) else "")
    swapped = [capital(f"{parts.plain[:start]}{lead}{thing}{parts.plain[stop:]}?") for thing in things]
    others = [pattern.format(x=parts.thing) for pattern in draw.permutation(_OTHERS)]
    common = list(draw.permutation(_KNOWN))
    candidates = _distinct(text for three in zip(swapped, others, common, strict=False) for text in three)
    taught = {_key(wording) for wording in (question, *_framed(parts))}
    apart = (text for text in candidates if _key(text) not in taught and odds_of(text, question) < _THE_SAME)
    return tuple(islice(apart, count))


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _key(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))


def spread(items: Sequence[str], count: int) -> tuple[str, ...]:
    if len(items) <= count:
        return tuple(items)
    return tuple(items[i * len(items) // count] for i in range(count))


# Documents of what was taught, in tokens: a question with its answer, by the model's own template.


Turns = tuple[tuple[str, str], ...]  # (role, text) of turns, oldest first


def answered(
    tokenizer: Tokenizer, before: Turns, question: str, answer: str, max_tokens: int, answer_tokens: int | None = None
) -> Document:  # fmt: skip
    """Return a question and its answer as a document, of which the first `answer_tokens` count (None = all). Raises LessonError if it
    is too long or the answer is empty, and TemplateError."""
    encoder = Encoder(tokenizer, max_tokens)
    record = Record("the example", "completion", _prompt(tokenizer, before, question))
    document = encoder.answered(record, answer)
    if not document.answer.any():
        raise LessonError("answer", "must say something", repr(answer[:40]))
    if answer_tokens is not None:
        stop = int(np.argmax(document.answer)) + answer_tokens
        document = Document(document.ids[:stop], document.answer[:stop])
    if encoder.fits(document, record.where) is None:
        cure = "Shorten the answer, or teach it as something to remember."
        raise LessonError("question and answer", f"must have at most {max_tokens} tokens together", len(document.ids), cure)
    return document


def prompt_ids(tokenizer: Tokenizer, before: Turns, question: str) -> list[int]:
    prompt = _prompt(tokenizer, before, question)
    return tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else encode_chat(tokenizer, prompt, variables={THINKING: False})


def _prompt(tokenizer: Tokenizer, before: Turns, question: str) -> str | tuple[dict[str, str], ...]:
    turns = (*before, ("user", question))
    if has_template(tokenizer):
        return tuple({"role": role, "content": text} for role, text in turns)
    return "\n".join(text for _, text in turns) + "\n"
