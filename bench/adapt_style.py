"""Style from ratings alone: a user rates 20 answers, and new answers must be in the preferred form. Bar: 80 % of them.

The model answers 40 questions four times each, drawn at temperature 0.9. For each preference the user, who is a script, gives a thumb up
to one answer in the preferred form and a thumb down to one in another, where the model wrote both; where that gives fewer than 20 thumbs,
the rest are thumbs down for answers to other questions. No answer is ever corrected. The learner makes a style lesson of them, from thumbs
alone: it knows none of the forms below. Then come 40 other questions, answered greedily as they are served, before and after. That is done
for three draws (`--seeds`). A form that most of the base's answers have is shown all the same: there is little to learn then.

  short     at most 25 words
  shorter   thumbs are relative: up for the shortest of four answers, down for the longest; counted are answers of fewer words than the
            untouched model's to the same question (of which that has none by definition)
  formal    no contraction, no exclamation mark
  no-lists  no line that begins as an item of a list
  plain     one paragraph
  lists     a line that begins as an item of a list

Settings were chosen on the questions and draws of `--split dev`, by one-off runs that end with `bits` and `sense` of the gate. `seen` are
the questions of earlier code, after a look at which its rate was halved; those of `test` are new. (`lists` was looked at too, on draws of
`dev`.)
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adapt_home import FOLDER, OWNER, Log, Pupil, allow_other_code, bench_home, request_of, share, shown
from harness import finish, show
from ingle.adapt.admit import Feedback, take_feedback
from ingle.core.message import Sampling
from ingle.engine.answer import write
from ingle.home.examples import list_examples
from servers import say, start_bench

EXAMPLES = """  python bench/adapt_style.py
  python bench/adapt_style.py --form short --ratings 10 --limit 10 --seeds 0
"""
_CONTRACTION = re.compile(r"\b\w+['’](?:t|m|re|ve|ll|d|s(?= (?:a|an|the|not|been|so|very|important|great|good)\b))\b", re.IGNORECASE)
_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
FORMS: dict[str, Callable[[str], bool]] = {
    "short": lambda text: 0 < len(text.split()) <= 25,
    "formal": lambda text: bool(text.strip()) and "!" not in text and not _CONTRACTION.search(text),
    "no-lists": lambda text: bool(text.strip()) and not _ITEM.search(text),
    "plain": lambda text: bool(text.strip()) and "\n" not in text.strip(),
    "lists": lambda text: bool(_ITEM.search(text)),
}
SHORTER = "shorter"
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
    "How do I bake a simple cake?", "What should I see in Prague?", "How can I learn to sing?", "Why do frogs croak?",
    "How do I plan a picnic?", "What is a good way to wake up early?", "How do I start a book club?", "What makes a good neighbour?",
    "How do I care for a wooden table?", "Give me ideas for a long train journey.", "How do I prepare for a storm?",
    "What is the point of sport?", "How does a mirror work?", "How do I choose a backpack?", "What can I cook with eggs?",
    "Why do people keep pets?", "How do I write a short story?", "What should I pack for a weekend in the snow?",
    "How do I get better at drawing maps?", "What are the benefits of swimming?", "How is paper made?", "How do I organise my photographs?",
    "What is a good gift for a gardener?", "How can I worry less?", "Why do stars twinkle?", "How do I mend a torn shirt?",
    "What makes a story exciting?", "How do I learn a new alphabet?", "What can I do against mosquitoes?", "How do I lead a meeting?",
    "What is good about living in a village?", "How do I teach a child to read?", "How do I stay warm in a tent?",
    "What helps against a headache?", "How do I choose a good book for a friend?", "What should I know about cheese?",
    "How do I grow strawberries?", "Why is friendship important?", "How do I make a kite?", "What is worth learning at sixty?",
)  # fmt: skip
"""Asked once, by the code whose figures are told."""
SEEN = (
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
"""The test questions of earlier code; settings were changed after a look at them."""


DEV = (
    "How do I boil an egg?", "What should I see in Madrid?", "How can I learn to dance?", "Why do horses sleep standing up?",
    "How do I plan a wedding?", "What is a good way to lose weight?", "How do I start a blog?", "What makes a good leader?",
    "How do I care for a guitar?", "Give me ideas for a school project.", "What is the point of history?",
    "How does a bicycle stay upright?", "How do I choose a laptop?", "What can I cook with potatoes?", "Why do people collect stamps?",
    "How do I write a cover letter?", "What are the benefits of yoga?", "How is glass made?", "What is a good gift for a grandmother?",
    "Why is the sea salty?", "How do I get rid of ants?", "What is a comet?", "How do I stop biting my nails?",
    "What should I know about wine?",
)  # fmt: skip
SPLITS = {"test": (ASKED, 0), "seen": (SEEN, 0), "dev": (DEV, 500_000)}
"""Questions that are asked afterwards, and where the seeds of the rated answers begin."""
NEXT_DRAWS = 1_000_000
"""From the seeds of one draw's rated answers to those of the next."""


def preferred(form: str, text: str, before: str) -> bool:
    """Whether an answer is in the form; `before`: the untouched model's to the same question."""
    return 0 < len(text.split()) < len(before.split()) if form == SHORTER else FORMS[form](text)


def thumbs(form: str, draws: Sequence[tuple[str, Sequence[str]]], ratings: int) -> list[tuple[str, str, int]]:
    """(question, answer, rating): what the user rates of the answers drawn."""
    given, pairs = list[tuple[str, str, int]](), list[tuple[str, str, str]]()
    for question, texts in draws:
        if form == SHORTER:
            ordered = sorted((text for text in texts if text.strip()), key=lambda text: len(text.split()))
            pairs.append((question, ordered[0], ordered[-1]))
            continue
        good, bad = (next((text for text in texts if FORMS[form](text) is wanted), None) for wanted in (True, False))
        if good is not None and bad is not None:
            pairs.append((question, good, bad))
    for question, good, bad in pairs:
        given += [(question, good, 1), (question, bad, -1)]
    given, known = given[:ratings], {question for question, _, _ in given}
    if len(given) == ratings:
        return given
    left = [(question, texts[0]) for question, texts in draws if question not in known and texts[0].strip()]
    return given + [(question, text, -1) for question, text in left if not preferred(form, text, text)][: ratings - len(given)]


@dataclass
class Base:
    """What the model writes before anything is learned, the same for every form: written down as it comes."""

    pupil: Pupil
    log: Log

    def draws(self, split: str, seed: int) -> list[tuple[str, list[str]]]:
        """TRIES answers to each question that is rated."""
        first, what = SPLITS[split][1] + NEXT_DRAWS * seed, f"draws {split}" + (f" {seed}" if seed else "")
        for start in range(0, len(RATED), 10):
            numbers = [number for number in range(start, start + 10) if self.log.get(what, RATED[number]) is None]
            asked = [
                replace(request_of(RATED[number], MAX_TOKENS), sampling=Sampling(temperature=0.9, seed=first + 1000 * number + i))
                for number in numbers
                for i in range(TRIES)
            ]
            texts = dict(write(self.pupil.model, asked))
            for place, number in enumerate(numbers):
                self.log.put(what, RATED[number], texts=[texts[place * TRIES + i] for i in range(TRIES)])
        return [(question, self.log.rows[what, question]["texts"]) for question in RATED]

    def answers(self, questions: Sequence[str]) -> list[str]:
        """Greedy, to each."""
        missing = [question for question in questions if self.log.get("answer", question) is None]
        for question, text in zip(missing, greedy(self.pupil, missing), strict=True):
            self.log.put("answer", question, text=text)
        return [self.log.rows["answer", question]["text"] for question in questions]


def thumb(pupil: Pupil, question: str, text: str, rating: int) -> None:
    """One rating, as the page gives it where the answer's text is not kept."""
    take_feedback(
        pupil.engine, OWNER, Feedback(rating=rating, question=question, answer=text, model=pupil.kept.name), sink=pupil.ledger.append
    )


def greedy(pupil: Pupil, questions: Sequence[str]) -> list[str]:
    """As they are served, side by side. A style acts on all of them alike."""
    choices = [pupil.chooser.choose(OWNER, pupil.model, pupil.kept, request_of(question, MAX_TOKENS)) for question in questions]
    if faults := [fault for choice in choices for fault in choice.faults]:
        raise SystemExit(f"a style does not act: {faults[0]}")
    texts = dict(write(choices[0].model, [choice.request for choice in choices])) if choices else {}
    return [texts[number] for number in range(len(questions))]


def measure(base: Base, form: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One preference, by the thumbs of one draw; `seed` is the lesson's as well."""
    folder, questions = options.home, SPLITS[options.split][0][: options.limit]
    name = f"style-{form}-{options.ratings}-{options.split}" + (f"-{seed}" if seed else "")
    pupil, log = Pupil(bench_home(folder, name, options.fresh), seed), Log(folder / f"{name}-{options.limit}.jsonl")
    if options.fresh:
        log.rows.clear()
    if log.get("after", form) is None:
        given = thumbs(form, base.draws(options.split, seed), options.ratings)
        known = {(one.question, one.rating) for one in list_examples(pupil.engine, OWNER)}
        for question, text, rating in given:
            if (question, rating) not in known:
                thumb(pupil, question, text, rating)
        up = sum(rating > 0 for _, _, rating in given)
        say(f"{form}, seed {seed}: {up} thumbs up, {len(given) - up} down")
        began = time.process_time()
        outcomes = pupil.learn().outcomes
        cpu_s, states = time.process_time() - began, sorted({one.state for one in list_examples(pupil.engine, OWNER)})
        reasons = [reason for outcome in outcomes for reason in outcome.reasons]
        texts = greedy(pupil, questions)
        told = {"up": up, "down": len(given) - up, "states": states, "reasons": reasons, "cpu_s": cpu_s}
        log.put("after", form, texts=texts, seconds=[outcome.seconds for outcome in outcomes], **told)
    pupil.close()
    return log.rows["after", form]


def figures(form: str, before: Sequence[str], runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the runs of a form come to: a share in percent, its interval by bootstrap over questions, whose runs stay together."""
    found: dict[str, Any] = {}
    for what, texts in (("before", [before]), ("after", [run["texts"] for run in runs])):
        held = [[preferred(form, one, old) for one, old in zip(some, before, strict=True)] for some in texts]
        found[what] = share([(float(sum(column)), float(len(column))) for column in zip(*held, strict=True)])
        found[f"by_seed_{what}"] = [100 * sum(row) / len(row) for row in held]
        found[f"words_{what}"] = float(np.median([len(one.split()) for some in texts for one in some]))
    return {**found, "runs": [{key: run[key] for key in ("up", "down", "states", "reasons", "seconds", "cpu_s")} for run in runs]}


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--form", action="append", choices=(*FORMS, SHORTER), help="several may be given; by default all")
    parser.add_argument("--ratings", type=int, default=20)
    parser.add_argument(
        "--split",
        choices=tuple(SPLITS),
        default="test",
        help="dev: other questions and draws, to choose settings by; seen: those of earlier code",
    )
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0, 1, 2], help="0,1,2")
    parser.add_argument("--limit", type=int, default=len(ASKED), help="questions that are asked afterwards")
    parser.add_argument("--home", type=Path, default=FOLDER)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--any-code", action="store_true", help="go on with homes that other code made")
    options = parser.parse_args()
    if options.any_code:
        allow_other_code(options.home)
    base = Base(Pupil(bench_home(options.home, "style-base", learns=False)), Log(options.home / "style-base.jsonl"))
    result: dict[str, Any] = {}
    columns = ["preferred form, percent (95 %)", "base", "after", "by seed", "thumbs up, down", "of a core, s", "median words", ""]
    table: list[list[object]] = [columns]
    before = base.answers(SPLITS[options.split][0][: options.limit])
    for form in options.form or (*FORMS, SHORTER):
        result[form] = one = figures(form, before, [measure(base, form, seed, options) for seed in options.seeds])
        runs = one["runs"]
        reasons = "; ".join(reason for run in runs for reason in run["reasons"])[:80]
        said = reasons or ("" if one["after"]["percent"] >= BAR else "below the bar")
        words = f"{one['words_before']:.0f} → {one['words_after']:.0f}"
        by_seed, thumbed = (
            ", ".join(f"{value:.0f}" for value in one["by_seed_after"]),
            "; ".join(f"{run['up']}, {run['down']}" for run in runs),
        )
        cpu_s = ", ".join(f"{run['cpu_s']:.0f}" for run in runs)
        table.append([form, shown(one["before"]), shown(one["after"]), by_seed, thumbed, cpu_s, words, said])
    show(f"style from {options.ratings} ratings, {options.split} questions; bar {BAR:.0f} %", table)
    told = {"ratings": options.ratings, "questions": options.limit, "bar": BAR, "split": options.split, "seeds": options.seeds}
    finish("adapt_style", {**told, "forms": result})
    sys.exit(0)


if __name__ == "__main__":
    main()
