"""Whose text is it: whole answers by digest, parts by words that are kept."""

import hmac

import pytest

from ingle.core.digest import canonical_json
from ingle.ethics.whose import RUN, Whose, whose
from ingle.ledger.row import Row

LONG = "The quick brown fox jumps over the lazy dog while seven wizards quietly brew coffee in the northern tower until dawn."


def digest(text: str) -> str:
    return hmac.digest(b"key", text.encode(), "sha256").hex()


def row(seq: int, text: str) -> Row:
    return Row(seq, "2026-01-01T00:00:00.000000+00:00", "answer", "m", canonical_json({"answer": digest(text)}).decode(), "", "", "")


def ask(text: str, answers: dict[int, str], kept: tuple[int, ...] = (), lost_before: int = 0) -> Whose:
    rows = [row(seq, said) for seq, said in sorted(answers.items(), reverse=True)]
    return whose(text, rows, digest, lambda seq: seq >= lost_before, [(seq, answers[seq]) for seq in kept])


@pytest.mark.parametrize("form", [LONG, f"{LONG}\n", f"  {LONG}\r\n", f"{LONG}\n\n"])
def test_a_whole_answer_is_found_without_its_words(form: str) -> None:
    found = ask(form, {1: "other", 2: LONG, 5: LONG, 7: LONG + "!"})
    assert found.ours and [one.seq for one in found.said] == [2, 5]
    assert (found.answers, found.kept, found.shared) == (4, 0, ())


def test_several_lines_whichever_way_they_end() -> None:
    assert ask("a\r\nb\r\n", {1: "a\nb"}).ours
    assert ask("a\nb\n", {1: "a\nb\n"}).ours
    assert not ask("a\nc", {1: "a\nb"}).ours


def test_a_part_is_found_where_the_words_are_kept() -> None:
    words = LONG.split()
    part = "Somebody else wrote this first. " + " ".join(words[3:15]).upper().replace(" ", ",  ")
    answers = {1: LONG, 2: "nothing of it"}
    found = ask(part, answers, kept=(1, 2))
    assert not found.ours
    [one] = found.shared
    assert one.seq == 1 and one.words == 12
    runs = 5 + 12 - RUN + 1
    assert found.runs == runs and one.share == found.share == pytest.approx((12 - RUN + 1) / runs)
    assert ask(part, answers).shared == (), "its words are not kept, so nobody can tell"
    assert ask(" ".join(words[3 : 3 + RUN - 1]), answers, kept=(1, 2)).shared == (), "so few words are said by many"


def test_several_answers_together() -> None:
    one, other = (" ".join(f"{name}{number}" for number in range(20)) for name in "ab")
    found = ask(f"{one} {other} {one}", {1: one, 2: other}, kept=(1, 2))
    assert [part.seq for part in found.shared] == [1, 2]
    assert found.share == pytest.approx((3 * (20 - RUN + 1)) / (60 - RUN + 1))


def test_what_cannot_be_told_is_counted() -> None:
    found = ask(LONG, {1: LONG, 2: "x", 3: "y"}, lost_before=2)
    assert not found.ours and found.unknown == 1 and found.answers == 2
    assert ask("two words", {}).runs == 0
