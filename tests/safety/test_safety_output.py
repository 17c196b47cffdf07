"""The output filter: nothing of a blocked span leaves, however the answer is cut; what comes out doesn't depend on the cuts."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ingle.core.errors import ConfigError
from ingle.core.message import Chunk, Message, Request, TokenLogprob
from ingle.engine.tools import ToolCallStream
from ingle.safety.guard import make_guards
from ingle.safety.guards import output, topics
from ingle.safety.holding import Scan, Undecided, both
from ingle.safety.middleware import GuardLayer, drive, wrap
from ingle.safety.policy import GuardRule, Topic
from ingle.safety.score_rules import ScoreRule, by_sentence, score_rules
from ingle.safety.word_search import LONGEST, Automaton, find_patterns
from tests.contracts.test_guards import policy
from tests.limited import calls, each_within_cpu
from tests.safety.scripted import LIMITS, ORDINARY, USAGE, Scripted, layers, passed, user, verdicts

MARKS = "ΨΩΦΞ"
"""Letters that stand in blocked spans and nowhere else."""
RULE = GuardRule("edit", words=("ΨΩΦ", "Ξ lantern Ω", "ΦΞΦΞ*"), patterns=(r"Ω-\d{2,}x", r"\[Ψ[^\]]{0,40}\]", "Ξ+Ψ?Φ"))
SPANS = [
    "ΨΩΦ", "ψωφ", "Ξ  lantern\nΩ", "ΦΞΦΞother", "Ω-1234x", "[Ψ anything at all]", "ΞΞΞΞΞΦ", "ΞΨΦ", "Ψ\u200bΩ\u200bΦ", r"\u03a8\u03a9\u03a6",
    r"\u03c8\u03c9\u03c6",
]  # fmt: skip
PLAIN = [
    "The",
    "cat",
    "sat",
    "on",
    "the",
    "mat,",
    "and",
    "it",
    "was",
    "warm",
    "there.",
    "One,",
    "two;",
    "three!",
    "“Well”,",
    "she",
    "said.",
    "日本語",
    "and",
    "more",
    "\\",
    "or",
    "less.",
]


def tokens(text: str, draw: random.Random) -> list[str]:
    """The text, cut at random."""
    cuts = sorted(draw.sample(range(1, len(text)), min(len(text) - 1, draw.randrange(0, len(text)))))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def chunks(pieces: Sequence[str], draw: random.Random, late: int = 0) -> list[Chunk]:
    """An answer of these tokens, several in a chunk. Their text comes up to `late` characters later, as stop strings hold it back."""
    made, waiting, at = [], "", 0
    while at < len(pieces):
        some = pieces[at : at + draw.choice((1, 1, 1, 3))]
        at += len(some)
        waiting += "".join(some)
        shown = len(waiting) - draw.randint(0, min(late, len(waiting)))
        top = ((7, "ΨΩΦ", -1.0), (8, "mat", -2.0))
        entries = tuple(TokenLogprob(hash(one), one, -0.5, top) for one in some)
        made.append(Chunk(waiting[:shown], tuple(hash(one) for one in some), entries))
        waiting = waiting[shown:]
    return [*made, Chunk(waiting, finish="stop", usage=USAGE)]


def answer(draw: random.Random) -> str:
    words = [draw.choice(SPANS) if draw.random() < 0.15 else draw.choice(PLAIN) for _ in range(draw.randrange(3, 30))]
    if draw.random() < 0.3:
        inner = " ".join(words[:5]).replace("\n", " ").replace("\\ ", "")
        words.insert(draw.randrange(len(words)), f'<tool_call>{{"name": "look", "arguments": {{"at": "{inner}"}}}}</tool_call>')
    return " ".join(words)


def said(out: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in out)


def leaks(out: Sequence[Chunk], pieces: Sequence[str]) -> list[str]:
    """All that left with a letter of a blocked span in it, as it is or spelled as an escape."""
    calls = ToolCallStream("hermes")
    parsed = [*calls.feed(said(out)), *calls.flush()]
    texts = [said(out), *(str(call) for call in parsed)]
    for chunk in out:
        for entry in chunk.logprobs:
            texts += [entry.text, *(one[1] for one in entry.top)]
        by_id = {hash(piece): piece for piece in pieces}
        texts += [by_id[token] for token in chunk.tokens]
    forbidden = [*MARKS, *MARKS.lower(), r"\u03", r"\u0"]
    return [text for text in texts if any(mark in text for mark in forbidden)]


@pytest.mark.parametrize("mode", ["edit", "block"])
def test_ten_thousand_cuts_leak_no_character(mode: str) -> None:
    draw = random.Random(42)
    guards = make_guards(LIMITS, policy(output=replace(RULE, mode=mode)))  # all guards of a server, the output filter among them
    blocked = 0
    for _ in range(5_000):
        text, late = answer(draw), draw.choice((0, 0, 9))
        request = user("hi", logprobs=2, stop=("x" * 9,) if late else ())
        pieces = tokens(text, draw)
        _, out = passed(guards, request, chunks(pieces, draw, late))
        found = any(mark in text for mark in (*MARKS, *MARKS.lower(), r"\u03"))
        assert not leaks(out, pieces), text
        assert (out[-1].finish == "blocked") == (found and mode == "block")
        assert bool([one for one in verdicts(out) if one.guard == "output"]) == found
        blocked += found
        if not found:
            assert said(out) == text
            assert sum(len(chunk.logprobs) for chunk in out) == len(pieces)
    assert 3_000 < blocked < 4_900


def test_the_cuts_change_nothing() -> None:
    draw = random.Random(7)
    nearly = [
        *SPANS,
        "ΨΩ",
        "Ψ",
        "Ω-1",
        "Ω-1x",
        "[Ψ" + "y" * 60,
        "Ξ lanter",
        "xΨΩΦ",
        "ΨΩΦx",
        "\\u03a8",
        "\\u03",
        "\\",
        "\\ud83d\\ude00",
        "😀",
    ]
    for _ in range(400):
        text = draw.choice(("", " ")).join(draw.choice([*nearly, *PLAIN]) for _ in range(draw.randrange(2, 20)))
        for mode in ("edit", "block", "tell"):
            guard = output.make(LIMITS, replace(RULE, mode=mode))  # type: ignore[arg-type]
            ways = ([text], tokens(text, draw), list(text))
            outs = [passed([guard], ORDINARY, [*map(Chunk, way), Chunk("", finish="stop")])[1] for way in ways]
            assert len({said(out) for out in outs}) == 1, text
            assert len({frozenset(one.rule for one in verdicts(out)) for out in outs}) == 1, text


def test_an_ordinary_answer_hardly_waits() -> None:
    text = " ".join(random.Random(1).choice(PLAIN) for _ in range(400))
    guard = output.make(LIMITS, replace(RULE, words=(*RULE.words, "forbidden", "theatre"), patterns=(r"[a-z]+@corp\.com",)))
    held, given, most = [], 0, 0
    for chunk in passed([guard], ORDINARY, [*map(Chunk, text), Chunk("", finish="stop")])[1]:
        held.append(chunk.text)
        most = max(most, len(chunk.text))
    assert "".join(held) == text
    assert most <= 7, "the longest word of it: only a word that may become an address waits"
    assert given == 0


def test_what_stop_strings_hide_leaves_no_log_probability() -> None:
    """The tokens of a stop string are no text, but have log-probabilities: a client could read a blocked word there."""
    pieces = ["The ", "word ", "is ", "se", "cret"]
    entries = [Chunk(text if text not in ("se", "cret") else "", (i,), (TokenLogprob(i, text, -1.0),)) for i, text in enumerate(pieces)]
    answer = [*entries[:-1], replace(entries[-1], finish="stop")]
    request = user("hi", logprobs=0, stop=("secret",))
    for mode in ("edit", "block"):
        _, out = passed([output.make(LIMITS, GuardRule(mode, words=("secret",)))], request, answer)  # type: ignore[arg-type]
        spelled = "".join(entry.text for chunk in out for entry in chunk.logprobs)
        assert "se" not in spelled and "cret" not in spelled
    assert out[-1].finish == "blocked"


def test_words_are_whole_words_in_every_script() -> None:
    rule = GuardRule("edit", words=("ass", "毒", "café", "Straße", "new york", "hass*"))
    guard = output.make(LIMITS, rule)
    for text, told in {
        "class ass. ASS!": "class [removed]. [removed]!",
        "中毒者": "中[removed]者",
        "cafe\u0301 CAFÉ cafés": "[removed] [removed] cafés",
        "STRASSE strasse": "[removed] [removed]",
        "New\n York, newyork": "[removed], newyork",
        "hassle ｈａｓｓ": "[removed] [removed]",
        "a_ass ass_": "a_ass ass_",
    }.items():
        assert said(passed([guard], ORDINARY, [Chunk(text), Chunk("", finish="stop")])[1]) == told


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        (r"\b\d{3}\b", ("a 123 b", "1234", "123", "x123")),
        ("(?i:abc)+d?", ("xABCabcD", "ab", "abcabcab")),
        ("^a|b$", ("ab", "ba", "bb", "a")),
        ("(?m:^x$)", ("a\nx\nb", "x", "xx")),
        ("[^a-c ]{2,3}", ("abcdefgh", "zz z", "")),
        (r"a.{0,3}?b|c\d+", ("axxb axxxxb c12", "abab", "c")),
        (r"\w+@\w+\.com", ("me@x.com, you@y.org", "@x.com", "a@b.comm")),
        ("(?s:a.b)|a.c", ("a\nb a\nc", "axc")),
        (r"(a|ab)(c|bcd)", ("abcd", "ac", "abc")),
    ],
)
def test_patterns_match_as_those_of_python_do(source: str, texts: tuple[str, ...]) -> None:
    import re

    made = Automaton.of_pattern(source)
    for text in texts:
        for start in range(len(text)):
            ends = [end for end in range(start + 1, len(text) + 1) if re.compile(source).fullmatch(text, start, end)]
            theirs = [end for end in ends if re.compile(f"(?:{source})(?=(?s:.{{{len(text) - end}}})\\Z)").match(text, start)]
            assert made.walk(text, start, len(text) + 1, "", final=True).end == max(theirs, default=-1), (text, start)


BOMBS = ["(a+)+b", "(a|a)*b", "(a|aa)+$", "((a{0,30}){0,30})b", "(.*)*x", r"(\w+\s?)*end", "a{0,400}a{0,400}b", "(x+x+)+y"]


def searched(source: str) -> bool:
    """Searches an answer of which Python's own search would take longer than the sun lasts."""
    guard = output.make(LIMITS, GuardRule("edit", patterns=(source,)))
    said(passed([guard], ORDINARY, [*(Chunk("a" * 40) for _ in range(25)), Chunk("!", finish="stop")])[1])
    return True


@pytest.fixture(scope="module")
def searches() -> dict[str, bool]:
    return each_within_cpu(searched, BOMBS)


@pytest.mark.parametrize("source", BOMBS)
def test_a_regex_bomb_takes_no_time(searches: dict[str, bool], source: str) -> None:
    assert searches[source]


WRONG = ["(", "(?=a)b", r"(a)\1", "a*", "x{1,5000}", "((a{1,100}){1,100}){1,100}", "(" * 5000, "(?<!x)y", r"\b", "[z-a]", "(?P<n>a)(?P=n)"]


@pytest.mark.parametrize("wrong", WRONG, ids=[source[:20] for source in WRONG])
def test_a_wrong_pattern_is_said(wrong: str) -> None:
    with pytest.raises(ConfigError):
        output.check(GuardRule("block", patterns=(wrong,)))


def test_many_words_cost_no_more_than_few() -> None:
    words = [f"word{i}x{i * 7919 % 10007}" for i in range(10_000)]
    text = " ".join(random.Random(1).choice(PLAIN) for _ in range(500))

    def cost(count: int, times: int) -> int:
        guard = output.make(LIMITS, GuardRule("block", words=tuple(words[:count])))
        pieces = [*map(Chunk, [text[i : i + 4] for i in range(0, len(text), 4)])] * times
        out: list[Chunk] = []
        called = calls(lambda: out.extend(passed([guard], ORDINARY, [*pieces, Chunk("", finish="stop")])[1]))
        assert said(out) == text * times
        return called

    few = cost(100, 1)
    assert cost(10_000, 1) < 1.1 * few and cost(10_000, 2) < 2.2 * few


def test_no_match_is_longer_than_is_said() -> None:
    guard = output.make(LIMITS, GuardRule("edit", patterns=("a+b",)))
    text = "a" * 2000 + "b"
    out = said(passed([guard], ORDINARY, [*map(Chunk, text), Chunk("", finish="stop")])[1])
    assert out == "a" * (2001 - LONGEST) + "[removed]"


def test_an_answer_that_is_blocked_ends_with_the_words_of_the_policy() -> None:
    guard = GuardLayer("output", output.make(LIMITS, GuardRule("block", words=("no",), say="Ask my mother.")), "block")
    _, out = passed([guard], ORDINARY, [Chunk("yes "), Chunk("n"), Chunk("o "), Chunk("more", finish="stop")])
    assert said(out) == "yes \n\nAsk my mother."
    assert out[-1].finish == "blocked"
    [verdict] = verdicts(out)
    assert (verdict.action, verdict.guard, verdict.rule, verdict.mode) == ("block", "output", "words 1", "block")
    assert "no" not in verdict.reason.split()
    assert said(passed([guard], ORDINARY, [Chunk("no", finish="stop")])[1]) == "Ask my mother."


COOKING = (
    "How long do I roast a chicken in the oven?", "Which herbs go with roast lamb?", "Chop the onions and fry them in butter.",
    "Simmer the sauce until it thickens.", "Roast the vegetables in the oven with oil and herbs.", "Fry the chicken in butter with onions.",
    "How do I thicken a sauce with butter?", "Season the lamb with herbs before you roast it.", "Fry onions and herbs for the sauce.",
    "Put the chicken in the oven with butter and herbs.",
)  # fmt: skip


def test_a_topic_of_ones_own_is_learned_from_examples_and_judged_by_the_sentence() -> None:
    rule = GuardRule("edit", topics=(Topic("cooking", COOKING),), alarms=0.02)
    guard = output.make(LIMITS, rule)
    text = "Rivers are long. Roast the chicken with herbs and butter in the oven. The moon is far away."
    whole = said(passed([guard], ORDINARY, [Chunk(text), Chunk("", finish="stop")])[1])
    assert whole == "Rivers are long.[removed] The moon is far away."
    out = passed([guard], ORDINARY, [*map(Chunk, text), Chunk("", finish="stop")])[1]
    assert said(out) == whole
    [verdict] = verdicts(out)
    assert verdict.rule == "topic cooking"
    assert verdict.score is not None and verdict.threshold is not None and verdict.score >= verdict.threshold > 0


def test_examples_without_anything_in_common_are_refused() -> None:
    nothing = tuple(f"{word}{word} {word}" for word in ("red", "tall", "seven", "paper", "quick", "wooden", "salt", "early"))
    with pytest.raises(ConfigError, match="in common"):
        output.check(GuardRule("tell", topics=(Topic("odd", nothing),)))


def test_a_scorer_is_one_more_rule() -> None:
    asked: list[tuple[str, str]] = []

    def scorer(question: str, text: str) -> float:
        asked.append((question, text))
        return 0.9 if "bad" in text else 0.1

    look = by_sentence([ScoreRule("harm", scorer, 0.5, True)], "why?", "")
    assert look(Undecided("", "Good. ba", 0, False)) == ([], 5)
    spans, decided = look(Undecided("Good.", " bad. End", 5, False))
    assert [(span.start, span.end, span.rule) for span in spans] == [(0, 5, "harm")]
    assert decided == 5
    assert asked == [("why?", "Good."), ("why?", "Good. bad.")]
    [judge] = score_rules(GuardRule("tell", harm=0.5))
    assert (judge.name, judge.threshold) == ("harm", 0.5)
    assert 0.0 <= judge.score("How do I boil an egg?", "Put it into boiling water for six minutes.") < 0.5


def test_a_request_without_rules_is_untouched() -> None:
    out = [Chunk("a", (1,)), Chunk("b", finish="stop", usage=USAGE)]
    assert passed([output.make(LIMITS, GuardRule("block"))], Request((Message.of("user", "x"),)), out)[1] == out


def test_a_topic_is_found_in_the_last_question_alone() -> None:
    guard = topics.make(LIMITS, GuardRule("block", topics=(Topic("cooking", COOKING),), alarms=0.02))
    asked = user("Hello there. How long should I fry onions in butter for a sauce with herbs?")
    _, [chunk] = passed([guard], user("What is the capital of Italy?"), [Chunk("Rome.", finish="stop")])
    assert chunk.text == "Rome."
    [ended] = list(drive(wrap(layers([guard]), Scripted())(asked)))
    assert (ended.text, ended.finish) == (topics.SAY, "blocked")
    [verdict] = ended.verdicts
    assert (verdict.rule, verdict.action) == ("topic cooking", "block")
    later = Request((*asked.messages, Message.of("assistant", "No."), Message.of("user", "Then tell me about the moon.")))
    assert passed([guard], later, [Chunk("Far.", finish="stop")])[1] == [Chunk("Far.", finish="stop")]


def test_words_and_topics_together_do_not_mind_the_cuts() -> None:
    rule = GuardRule(
        "edit", words=("moon", "sauce that*"), patterns=(r"far[a-z ]{3,60}!",), topics=(Topic("cooking", COOKING),), alarms=0.02
    )
    draw = random.Random(5)
    sentences = [
        *COOKING,
        "The moon is far away.",
        "It is far and wide and no end to it",
        "Rivers are long",
        "x" * 300,
        "One, two, three!",
        "far off!",
    ]
    for _ in range(60):
        text = draw.choice((" ", ". ", "")).join(draw.choice(sentences) for _ in range(6))
        outs = []
        for pieces in ([text], [*text], tokens(text, draw)):
            out = passed([output.make(LIMITS, rule)], ORDINARY, [*map(Chunk, pieces), Chunk("", finish="stop")])[1]
            outs.append((said(out), frozenset(one.rule for one in verdicts(out))))
        assert len(set(outs)) == 1, text


def test_a_judged_sentence_ends_where_it_ended_though_only_part_of_it_was_let_go() -> None:
    text = "x" * 230 + "y" * 15 + "z" * 300
    judged = []
    for pieces in ([text], [*text]):
        asked: list[int] = []
        rule = ScoreRule("length", lambda _question, answer, asked=asked: float(asked.append(len(answer)) or 0.0), 0.5, True)
        scan = Scan(both([*find_patterns(("y{20}",), ""), by_sentence([rule], "", "")]))
        for piece in pieces:
            scan.feed(piece, False)
        scan.feed("", True)
        judged.append(asked)
    assert judged[0] == judged[1] == [240, 480, len(text)]
