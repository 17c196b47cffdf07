"""Closeness of a text to a reference: exact match, ROUGE and chrF. The last two are the libraries' own (extra `measure`)."""

import re
import string
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from ingle.core.errors import ConfigError
from ingle.core.installing import how_to_install
from ingle.measure.intervals import Floats

ROUGE = ("rouge1", "rouge2", "rougeL")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Return the text as exact match compares it: NFC, lower case, without ASCII punctuation, without a, an, the, with single spaces.

    The order is that of SQuAD's script (arXiv 1606.05250); NFC is ours, so that é is é in either encoding.
    """
    plain = unicodedata.normalize("NFC", text).lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", plain).split())


def exact_match(answers: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Whether each answer is its reference, both normalised."""
    return [normalise(answer) == normalise(reference) for answer, reference in zip(answers, references, strict=True)]


def rouge(answers: Sequence[str], references: Sequence[str]) -> dict[str, Floats]:
    """F1 of each answer, 0 to 1, for each kind in `ROUGE`; words are stemmed (Porter), which is made for English.

    Raises ConfigError without the library.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise _missing("rouge-score") from error
    scorer: Any = RougeScorer(list(ROUGE), use_stemmer=True)
    by_answer = [scorer.score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
    return {kind: np.array([scores[kind].fmeasure for scores in by_answer], np.float64) for kind in ROUGE}


def chrf(answers: Sequence[str], references: Sequence[str]) -> Floats:
    """chrF2 of each answer, 0 to 100: F of character 1- to 6-grams, recall weighing twice (sacrebleu's sentence score).

    Raises ConfigError without the library.
    """
    scorer = _chrf()
    pairs = zip(answers, references, strict=True)
    return np.array([scorer.sentence_score(answer, [reference]).score for answer, reference in pairs], np.float64)


def corpus_chrf(answers: Sequence[str], references: Sequence[str]) -> float:
    """chrF2 of all answers together, 0 to 100, as papers report it: n-grams are counted over all of them, so long ones weigh more."""
    return float(_chrf().corpus_score(list(answers), [list(references)]).score)


def scores(names: Sequence[str], answers: Sequence[str], references: Sequence[str]) -> dict[str, Floats]:
    """Compute these figures of each answer: kinds of ROUGE, `chrf`, `exact_match`."""
    rouges = rouge(answers, references) if set(names) & set(ROUGE) else {}
    figures: dict[str, Floats] = {}
    for name in names:
        if name in rouges:
            figures[name] = rouges[name]
        else:
            figures[name] = chrf(answers, references) if name == "chrf" else np.array(exact_match(answers, references), np.float64)
    return figures


def _chrf() -> Any:
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise _missing("sacrebleu") from error
    return CHRF()


def _missing(library: str) -> ConfigError:
    return ConfigError(library, f"This figure needs {library}, which is not installed", "", how_to_install("measure"))
