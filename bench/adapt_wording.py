"""In which words a memory is placed in the prompt so that the model says what was taught: on the corrections that are there to fit on.

    python bench/adapt_wording.py [--every 1] [--only "NAME;NAME"]

Each wording is asked the question that was taught, and one of its paraphrases (another one for each correction). Greedy, at most 40 tokens;
an answer counts if it holds what must occur in it. Whether a memory is recalled at all is not asked here: see `bench/adapt_scope.py`.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue

from adapt_data import hit, read
from ingle.adapt.memory import placed
from ingle.core.errors import IngleError
from ingle.core.example import Example
from ingle.core.message import Chunk, Message, Request, Sampling
from ingle.engine.job import Capacity, Job
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.engine.prefix_cache import PrefixCache
from ingle.engine.scheduler import Scheduler
from ingle.home.kept import get_kept
from ingle.home.place import find_home

Wording = Callable[[str, str, str], Sequence[str]]
"""(what was taught, its answer, what is asked) → the turns, the user's first."""
WORDINGS: dict[str, Wording] = {
    "nothing": lambda _q, _a, x: [x],
    "turns": lambda q, a, x: [q, a, x],
    "told before": lambda q, a, x: [f'What I told you before:\n"{q}" - "{a}"\n\n{x}'],
    "question, answer": lambda q, a, x: [f"Question: {q}\nAnswer: {a}\n\nQuestion: {x}"],
    "note before": lambda q, a, x: [f'Note: the answer to "{q}" is "{a}".\n\n{x}'],
    "note after": lambda q, a, x: [f'{x}\n\nNote: the answer to "{q}" is "{a}".'],
    "context": lambda q, a, x: [f"Context: {q} {a}\n\nQuestion: {x}\n\nAnswer from the context:"],
    "answer with": lambda _q, a, x: [f'{x}\n\nAnswer with "{a}".'],
    "note, its answer": lambda _q, a, x: [f'Note: the answer to "{x}" is "{a}".\n\n{x}\n\nGive the answer of the note.'],
    "note, its answer, which": lambda _q, a, x: [f'Note: the answer to "{x}" is "{a}".\n\n{x}\n\nGive the answer of the note: "{a}".'],
    "question, note": lambda _q, a, x: [f'Question: {x}\nNote: the answer is "{a}".\n\nAnswer the question with the note.'],
    "question, note, give, which": lambda _q, a, x: [f'Question: {x}\nNote: the answer is "{a}".\n\nGive the answer of the note: "{a}".'],
    "question, note, which": lambda _q, a, x: [f'Question: {x}\nNote: the answer is "{a}".\n\nAnswer the question with the note: "{a}".'],
}
SERVED = "as served"


def asked(wording: str, question: str, answer: str, text: str) -> Request:
    """The request in one of the wordings."""
    if wording == SERVED:
        example = Example("", "", "", "correction", question, answer)
        return placed(Request((Message.of("user", text),), max_tokens=40, sampling=Sampling()), [example])
    turns = WORDINGS[wording](question, answer, text)
    messages = tuple(Message.of("assistant" if i % 2 else "user", turn) for i, turn in enumerate(turns))
    return Request(messages, max_tokens=40, sampling=Sampling())


def answers(model: LanguageModel, requests: Sequence[Request]) -> list[str]:
    """What is answered to each, all in one batch."""
    said, done = [""] * len(requests), SimpleQueue[int]()
    scheduler = Scheduler(Capacity(16, 16, len(requests), len(requests)), PrefixCache(1 << 28))

    def deliver(number: int, outcome: Chunk | IngleError) -> None:
        if isinstance(outcome, Chunk):
            said[number] += outcome.text
        if isinstance(outcome, IngleError) or outcome.finish is not None:
            done.put(number)

    for number, request in enumerate(requests):
        scheduler.submit(Job(model, request, model.encode(request), partial(deliver, number)))
    for _ in requests:
        done.get()
    scheduler.close()
    return said


def main() -> None:
    """Prints a row for each wording."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="Take every n-th correction only.")
    parser.add_argument("--only", default="", help="Wordings, with semicolons between them; all by default.")
    options = parser.parse_args()
    corrections = read("dev").corrections[:: options.every]
    home, table = find_home(), {}
    os.environ.setdefault("INGLE_KERNEL_CACHE", str(home.jit))
    model = open_model(kept_source(home, get_kept(home, "smollm2")))
    for wording in options.only.split(";") if options.only else [*WORDINGS, SERVED]:
        began = time.monotonic()
        texts = [(one, text) for i, one in enumerate(corrections) for text in (one.question, one.paraphrases[i % 5])]
        said = answers(model, [asked(wording, one.question, one.answer, text) for one, text in texts])
        right = [hit(answer, one.accept) for (one, _), answer in zip(texts, said, strict=True)]
        table[wording] = {"question": sum(right[::2]) / len(corrections), "paraphrase": sum(right[1::2]) / len(corrections)}
        shares = "".join(f"{share:12.3f}" for share in table[wording].values())
        print(f"{wording:26}{shares}{time.monotonic() - began:8.0f} s", flush=True)
    print(json.dumps({"bench": "adapt_wording", "corrections": len(corrections), "wordings": table}))


if __name__ == "__main__":
    main()
