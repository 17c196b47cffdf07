"""Scope: scores how near a question is to taught questions. Near 1 for paraphrases, near 0 for others, however alike they look.

A question has a subject (the names and things in it) and asks for a relation (adapt/relations.py). A paraphrase keeps the subject word
for word and says the relation in other words; a near-miss changes one of them. So the subjects must match both ways, names above all,
and the relations must agree. A small trained network gives a second opinion (model/text_encoder.py): it knows words that the thesaurus
lacks, but is less sure of names than a comparison of letters. A logistic model weighs both. `bench/adapt_scope.py` fitted its constants
on questions that share no subject with those by which Ingle is measured. Two other signals told little (docs/decisions.md): the served
model's embeddings, and its likelihood of one question after the other.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.adapt.asking import Asking, Word, parse, tokens_of
from ingle.model.text_encoder import odds_of

Array = npt.NDArray[Any]
ACTS = 0.81  # least score at which an example acts: as a memory in the prompt, or by its lesson beside the weights
ASKS = 0.4  # least score at which whoever asked is asked back whether they mean what was taught
LONGEST = 60  # most words of a question; a longer one is compared word for word only, because a whole document mentions everything
SURE = 6.0  # bound of the matcher's log odds
# Least log odds by the features at which the matcher is asked, and of how many taught questions: it takes some milliseconds for each.
HOPE, MOST_MATCHED = -2.0, 12
MATCHED = 0.97  # weight of the matcher's log odds
# By feature, in the order of `features`.
WEIGHTS: dict[str, float] = {
    "bias": 0.48,
    "names missing, all": -2.28,
    "names missing, some": -0.80,
    "names more, all": -2.55,
    "names more, some": -1.38,
    "things missing, names there": 0.09,
    "things missing, names none": -0.14,
    "things missing and more, names none": -0.58,
    "things more, one": 0.16,
    "things more, several": 0.24,
    "relations found, all": 0.37,
    "relations found, some": 0.53,
    "relations found, none": -0.44,
    "relations found, none, and others there": -0.15,
    "relations more": -0.13,
    "things missing, relations found": -1.41,
    "kinds shared": -0.09,
    "kinds apart": -1.03,
    "kinds apart, both telling": 0.08,
    "kind missing": -0.07,
    "kind more": -0.08,
    "kind more, of a measure": -3.00,
    "neither kind nor relation shared": -0.73,
    "mine missing": -4.00,
    "mine more": -0.44,
    "all the same": 2.24,
}
_CONSTANTS = np.array(tuple(WEIGHTS.values()))
_NEVER = -50.0
_VAGUE = frozenset(["WAY", "DEED", "PRICE", "YES OR NO"])  # kinds of answers that other words may ask for too
_ASKED_BY_WORDS = frozenset(["PERSON", "PLACE", "TIME"])


def score(question: str, taught: Sequence[str]) -> Array:
    """Return how near a question is to each taught one, [len(taught)] in [0, 1]; 1 for the same words."""
    asked, tokens = parse(question), tokens_of(question)
    same = np.array([tokens == tokens_of(text) for text in taught], bool)
    odds = np.array([_NEVER if known else _odds(asked, text) for known, text in zip(same, taught, strict=True)], np.float64)
    for number in np.argsort(-odds, kind="stable")[:MOST_MATCHED].tolist():
        if odds[number] >= HOPE:
            odds[number] += MATCHED * min(SURE, max(-SURE, odds_of(question, taught[number])))
    return np.where(same, 1.0, 1 / (1 + np.exp(-odds)))


def relevance(question: str, facts: Sequence[str]) -> Array:
    """Return the share of a question's words that each fact holds, [len(facts)] in [0, 1]; 0 if a name is missing."""
    asked = parse(question)
    shares = []
    for fact in map(parse, facts):
        missing = _unmatched(asked, fact)
        matched = len({word.stem for word in asked.words} - {word.stem for word in missing})
        about = any(not word.relations or word.name for word in asked.words if word not in missing)
        lost = len({word.stem for word in missing})
        fits = about and asked.length <= LONGEST and not any(word.name for word in missing)
        shares.append(matched / (matched + lost) if fits else 0.0)
    return np.array(shares, np.float64)


def _odds(asked: Asking, text: str) -> float:
    """Return the log odds, by the features alone, that a question is a taught one."""
    taught = parse(text)
    if max(asked.length, taught.length) > LONGEST or not asked.words or not taught.words:
        return _NEVER
    return float(features(asked, taught) @ _CONSTANTS)


def features(asked: Asking, taught: Asking) -> Array:
    """Return the features of two questions, [len(WEIGHTS)]."""
    missing, more = _unmatched(taught, asked), _unmatched(asked, taught)
    named = any(word.name for word in taught.words)
    shared = any(word.name and word.stem in asked.stems for word in taught.words)
    (names_lost, things_lost, relations_lost), (names_new, things_new, relations_new) = _counted(missing), _counted(more)
    relation_found = len({word.relations for word in taught.words if word.relations and not word.name}) - relations_lost > 0
    kinds = bool(taught.kinds & asked.kinds)
    apart, mine_missing = bool(taught.kinds) and bool(asked.kinds) and not kinds, taught.mine and not asked.ours
    values = {
        "bias": 1,
        "names missing, all": names_lost > 0 and not shared,
        "names missing, some": names_lost > 0 and shared,
        "names more, all": names_new > 0 and not shared,
        "names more, some": names_new > 0 and shared,
        "things missing, names there": min(things_lost, 2) if named else 0,
        "things missing, names none": 0 if named else min(things_lost, 2),
        "things missing and more, names none": things_lost > 0 and things_new > 0 and not named,
        "things more, one": things_new == 1,
        "things more, several": things_new > 1,
        "relations found, all": relation_found and not relations_lost,
        "relations found, some": relation_found and relations_lost > 0,
        "relations found, none": not relation_found and relations_lost > 0,
        "relations found, none, and others there": not relation_found and relations_lost > 0 and relations_new > 0,
        "relations more": min(relations_new, 2),
        "things missing, relations found": things_lost > 0 and relation_found and not named,
        "kinds shared": kinds,
        "kinds apart": apart,
        "kinds apart, both telling": apart and not (taught.kinds | asked.kinds) & _VAGUE,
        "kind missing": bool(taught.kinds) and not asked.kinds,
        "kind more": bool(asked.kinds) and not taught.kinds,
        "kind more, of a measure": bool(asked.kinds - _VAGUE - _ASKED_BY_WORDS) and not taught.kinds,
        "neither kind nor relation shared": not kinds and not relation_found,
        "mine missing": mine_missing,
        "mine more": asked.mine and not taught.ours,
        "all the same": not missing and not more and kinds and not mine_missing,
    }
    return np.array(list(values.values()), np.float64)


def _counted(words: Sequence[Word]) -> tuple[int, int, int]:
    """Return the numbers of names, things and different relations."""
    plain = [word for word in words if not word.name]
    return len(words) - len(plain), sum(not word.relations for word in plain), len({word.relations for word in plain if word.relations})


def _unmatched(of: Asking, other: Asking) -> list[Word]:
    """Return the words of one question whose stem (of names and things) or relation the other lacks."""
    return [
        word for word in of.words
        if (word.stem not in other.stems if word.name or not word.relations else not word.relations & other.relations)
    ]  # fmt: skip
