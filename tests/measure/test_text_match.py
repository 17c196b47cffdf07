"""Texts against references: the libraries' own figures, and exact match as it is stated."""

import numpy as np
import pytest
from rouge_score import rouge_scorer
from sacrebleu.metrics.chrf import CHRF

from ingle.core.errors import ConfigError
from ingle.measure import figures
from ingle.measure.figures import chrf, corpus_chrf, exact_match, normalise, rouge, scores

ANSWERS = ["The cat sat on the mat.", "", "Un petit paquet réécrit l'été", "a police killed the gunman"]
REFERENCES = ["A cat was sitting on a mat", "something", "Ce petit paquet réécrit l'été.", "police killed the gunman"]


def test_rouge_is_the_librarys() -> None:
    found = rouge(ANSWERS, REFERENCES)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for i, (answer, reference) in enumerate(zip(ANSWERS, REFERENCES, strict=True)):
        for kind, expected in scorer.score(reference, answer).items():
            assert found[kind][i] == expected.fmeasure
    # Of the last pair: four of five words in the answer, four of four in the reference.
    assert found["rouge1"][3] == pytest.approx(2 * 0.8 * 1 / 1.8)


def test_chrf_is_the_librarys() -> None:
    found = chrf(ANSWERS, REFERENCES)
    assert found.tolist() == [CHRF().sentence_score(a, [r]).score for a, r in zip(ANSWERS, REFERENCES, strict=True)]
    assert corpus_chrf(ANSWERS, REFERENCES) == CHRF().corpus_score(ANSWERS, [REFERENCES]).score
    assert chrf(["gleich"], ["gleich"])[0] == pytest.approx(100)
    assert found[1] == 0


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("The  Cat!", "cat", True),
        ("cafe\u0301", "café", True),
        ("an answer", "answer.", True),
        ("Athens", "a thens", False),
        ("", "the", True),
        ("1,000", "1000", True),
        ("yes", "no", False),
    ],
)
def test_exact_match_is_what_it_says(answer: str, reference: str, same: bool) -> None:
    assert exact_match([answer], [reference]) == [same]
    assert normalise(normalise(answer)) == normalise(answer)


def test_several_figures_at_once() -> None:
    found = scores(("rougeL", "chrf", "exact_match"), ANSWERS, REFERENCES)
    assert list(found) == ["rougeL", "chrf", "exact_match"]
    np.testing.assert_array_equal(found["rougeL"], rouge(ANSWERS, REFERENCES)["rougeL"])
    assert found["exact_match"].tolist() == [0, 0, 0, 1]


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rouge_score.rouge_scorer", None)
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu.metrics.chrf", None)
    for ask in (figures.rouge, figures.chrf):
        with pytest.raises(ConfigError, match=r"-m pip install"):
            ask(["a"], ["b"])
