"""Style from ratings alone: a user rates 20 answers, and new answers must be in the preferred form. Bar: 80 % of them.

For each preference the model answers questions four times each, drawn at temperature 0.9, and the user, who is a script, gives a thumb up
to one answer in the preferred form and a thumb down to one in another, where the model wrote both; until there are 20 thumbs. No answer
is ever corrected. The learner makes a style lesson of them. Then come 40 other questions, answered greedily as they are served, before and
after. A form that most of the base's answers have is shown all the same: there is little to learn then.

  short     at most 25 words
  formal    no contraction, no exclamation mark
  no-lists  no line that begins as an item of a list
  plain     one paragraph
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adapt_home import FOLDER, OWNER, Log, Pupil, allow_other_code, bench_home, request_of, share, shown
from harness import finish, show
from ingle.adapt.admit import Feedback, take_feedback
from ingle.core.message import Sampling
from ingle.engine.language_model import LanguageModel
from ingle.engine.writing import write
from ingle.home.examples import list_examples
from servers import say, start_bench

EXAMPLES = """  python bench/adapt_style.py
  python bench/adapt_style.py --form short --ratings 10 --limit 10
"""
_CONTRACTION = re.compile(r"\b\w+['’](?:t|m|re|ve|ll|d|s(?= (?:a|an|the|not|been|so|very|important|great|good)\b))\b", re.IGNORECASE)
_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
FORMS: dict[str, Callable[[str], bool]] = {
    "short": lambda text: 0 < len(text.split()) <= 25,
    "formal": lambda text: bool(text.strip()) and "!" not in text and not _CONTRACTION.search(text),
    "no-lists": lambda text: bool(text.strip()) and not _ITEM.search(text),
    "plain": lambda text: bool(text.strip()) and "\n" not in text.strip(),
}
MAX_TOKENS, TRIES, BAR = 160, 4, 80.0
RATED = (
    "How do I keep bread fresh?", "What should I see in Lisbon?", "How can I learn to draw?", "Why do cats purr?", "How do I plan a party?",
    "What is a good way to save money?", "How do I start running?", "What makes a good friend?", "How do I care for a cactus?",
    "Give me ideas for a rainy afternoon.", "How do I prepare for an interview?", "What is the point of poetry?", "How does soap clean?",
    "How do I choose a bicycle?", "What can I cook with lentils?", "Why do people travel?", "How do I write a letter of thanks?",
    "What should I pack for the mountains?", "How do I get better at chess?", "What are the benefits of walking?", "How is honey made?",
    "How do I organise my desk?", "What is a good gift for a teacher?", "How can I make new friends?", "Why do we dream?",
    "How do I fix a squeaky door?", "What makes a town pleasant?", "How do I learn a poem by heart?", "What can I do against hiccups?",
    "How do I host a dinner?", "What is good about winter?", "How do I teach a dog to sit?", "How do I stay calm in traffic?",
    "What helps against a cold?", "How do I pick a ripe melon?", "What should I know about tea?", "How do I grow tomatoes?",
    "Why is sleep important?", "How do I take better photographs?", "What is worth reading?",
)  # fmt: skip
ASKED = (
    "How do I make a good soup?", "What should I see in Vienna?", "How can I learn to swim?", "Why do dogs bark?", "How do I plan a trip?",
    "What is a good way to study?", "How do I start a garden?", "What makes a good teacher?", "How do I care for leather shoes?",
    "Give me ideas for a birthday.", "How do I prepare for an exam?", "What is the point of music?", "How does a candle burn?",
    "How do I choose a tent?", "What can I cook with rice?", "Why do people sing?", "How do I write an invitation?",
    "What should I pack for the beach?", "How do I get better at cooking?", "What are the benefits of reading?", "How is cheese made?",
    "How do I organise my kitchen?", "What is a good gift for a child?", "How can I be more patient?", "Why do we laugh?",
    "How do I repair a puncture?", "What makes a house a home?", "How do I remember names?", "What can I do against the heat?",
    "How do I give a speech?", "What is good about autumn?", "How do I teach a child to ride a bicycle?", "How do I stay awake?",
    "What helps against stress?", "How do I choose a good mattress?", "What should I know about coffee?", "How do I grow herbs?",
    "Why is water important?", "How do I make better videos?", "What is worth seeing in nature?",
)  # fmt: skip


def drawn(model: LanguageModel, questions: Sequence[str]) -> list[list[str]]:
    """TRIES answers to each question."""
    asked = [
        replace(request_of(question, MAX_TOKENS), sampling=Sampling(temperature=0.9, seed=1000 * number + i))
        for number, question in enumerate(questions)
        for i in range(TRIES)
    ]
    texts = dict(write(model, asked))
    return [[texts[number * TRIES + i] for i in range(TRIES)] for number in range(len(questions))]


def rate(pupil: Pupil, form: str, ratings: int) -> tuple[int, int]:
    """The user's thumbs. Returns how many were up and down."""
    known = [one for one in list_examples(pupil.engine, OWNER) if one.kind == "rating"]
    given = [(one.question, one.rating) for one in known]
    likes, step = FORMS[form], 10
    for start in range(0, len(RATED), step):
        questions = RATED[start : start + step]
        if len(given) >= ratings:
            break
        for question, texts in zip(questions, drawn(pupil.model, questions), strict=True):
            good, bad = (next((text for text in texts if likes(text) is wanted), None) for wanted in (True, False))
            if good is None or bad is None:
                continue
            for text, rating in ((good, 1), (bad, -1)):
                if len(given) < ratings and (question, rating) not in given:
                    thumb(pupil, question, text, rating)
                    given.append((question, rating))
    return sum(rating > 0 for _, rating in given), sum(rating < 0 for _, rating in given)


def thumb(pupil: Pupil, question: str, text: str, rating: int) -> None:
    """One rating, as the page gives it where the answer's text is not kept."""
    take_feedback(
        pupil.engine, OWNER, Feedback(rating=rating, question=question, answer=text, model=pupil.kept.name), sink=pupil.ledger.append
    )


def greedy(pupil: Pupil, questions: Sequence[str]) -> list[str]:
    """As it is served."""
    found = []
    for question in questions:
        choice = pupil.chooser.choose(OWNER, pupil.model, pupil.kept, request_of(question, MAX_TOKENS))
        found += [text for _, text in write(choice.model, [choice.request])]
    return found


def measure(folder: Path, form: str, ratings: int, questions: Sequence[str], fresh: bool) -> dict[str, Any]:
    """One preference."""
    name = f"style-{form}-{ratings}"
    pupil, log = Pupil(bench_home(folder, name, fresh)), Log(folder / f"{name}-{len(questions)}.jsonl")
    if fresh:
        log.rows.clear()
    likes = FORMS[form]
    if log.get("before", form) is None:
        texts = greedy(pupil, questions)
        log.put("before", form, good=[likes(text) for text in texts], texts=texts)
    if log.get("after", form) is None:
        up, down = rate(pupil, form, ratings)
        say(f"{form}: {up} thumbs up, {down} down")
        outcomes = pupil.learn().outcomes
        states = sorted({one.state for one in list_examples(pupil.engine, OWNER)})
        reasons = [reason for outcome in outcomes for reason in outcome.reasons]
        texts = greedy(pupil, questions)
        seconds = [outcome.seconds for outcome in outcomes]
        told = {"up": up, "down": down, "states": states, "reasons": reasons, "seconds": seconds}
        log.put("after", form, good=[likes(text) for text in texts], texts=texts, **told)
    before, after = (log.rows[what, form] for what in ("before", "after"))
    pupil.close()
    figures = {what: share([(float(flag), 1.0) for flag in row["good"]]) for what, row in (("before", before), ("after", after))}
    return {**figures, **{key: after[key] for key in ("up", "down", "states", "reasons", "seconds")}}


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--form", action="append", choices=tuple(FORMS), help="several may be given; by default all")
    parser.add_argument("--ratings", type=int, default=20)
    parser.add_argument("--limit", type=int, default=len(ASKED), help="questions that are asked afterwards")
    parser.add_argument("--home", type=Path, default=FOLDER)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--any-code", action="store_true", help="go on with homes that other code made")
    options = parser.parse_args()
    if options.any_code:
        allow_other_code(options.home)
    result: dict[str, Any] = {}
    table: list[list[object]] = [["preferred form, percent (95 %)", "base", "after", "thumbs up, down", "learned in, s", ""]]
    for form in options.form or FORMS:
        one = result[form] = measure(options.home, form, options.ratings, ASKED[: options.limit], options.fresh)
        seconds = ", ".join(f"{value:.0f}" for value in one["seconds"])
        said = "; ".join(one["reasons"])[:80] or ("" if one["after"]["percent"] >= BAR else "below the bar")
        table.append([form, shown(one["before"]), shown(one["after"]), f"{one['up']}, {one['down']}", seconds, said])
    show(f"style from {options.ratings} ratings; bar {BAR:.0f} %", table)
    finish("adapt_style", {"ratings": options.ratings, "questions": options.limit, "bar": BAR, "forms": result})
    sys.exit(0)


if __name__ == "__main__":
    main()
