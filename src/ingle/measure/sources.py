"""Data sets as items. Each has a reader, whose docstring says what the data are, their licence, their number, and their quirks.

Missing here, because it could not be had: TruthfulQA as multiple choice (the package holds right answers only), HellaSwag, PIQA and
CommonsenseQA from the same package (no answers), translations with references from anywhere but Debian.
"""

import csv
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ingle.core.errors import ConfigError, PullError
from ingle.core.installing import how_to_install
from ingle.home.datasets import dataset
from ingle.home.fetch import FetchProgress
from ingle.home.place import Home
from ingle.measure.items import Exercise, Groups, Question, Text

XSUM_ASK = "Summarise this news article in one sentence.\n\n{text}"
_XSUM_CHARACTERS = 3000
_OPTION = re.compile(r"(?:^|\n)([A-Z])\. ")
# A full stop ends a sentence if a capital follows, and no title or initial stands before it.
_SENTENCE_END = re.compile(r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\b[A-Z])[.!?][\"'”’)]*(?=\s+[\"'“‘(]?[A-Z0-9])")


def xsum_texts(home: Home, progress: FetchProgress) -> list[Text]:
    """The articles of `xsum`: 1,000 of XSum's 11,334 test articles (BBC news, 2010 to 2017), 2.2 kB on average; one is empty and left out.

    Licence: the package says Apache-2.0, XSum's own repository MIT; the articles are the BBC's. The first sentence of each article is
    not in it: it became the summary.
    """
    return [Text(row["id"], row["id"], row["document"]) for row in _xsum(home, progress)]


def xsum_exercises(home: Home, progress: FetchProgress) -> list[Exercise]:
    """The articles with their summaries. Each is one sentence that the BBC wrote above the article, so it often says more than the rest
    does (and a few say nothing: one is "Ouch!").

    Articles are cut before the line that passes 3,000 characters (a third of them are longer). The baseline is the first sentence (lead-1).
    """
    exercises = []
    for row in _xsum(home, progress):
        text = cut_at_line(row["document"], _XSUM_CHARACTERS)
        exercises.append(Exercise(row["id"], row["id"], XSUM_ASK.replace("{text}", text), row["summary"], first_sentence(text)))
    return exercises


def wiki_texts(home: Home, progress: FetchProgress) -> list[Text]:
    """Paragraphs of `boolq`: 2,938 different ones from the English Wikipedia, 0.6 kB on average. General text, for forgetting.

    Licence CC-BY-SA-3.0. Quotation marks are written `` and '', as the data set's authors' tokeniser left them.
    """
    rows = {row["passage"]: row["title"] for row in json_lines(dataset(home, "boolq", progress))}
    return [Text(f"wiki/{number}", title, passage) for number, (passage, title) in enumerate(rows.items())]


def boolq(home: Home, progress: FetchProgress) -> list[Question]:
    """BoolQ's dev part: 3,270 questions that people typed into a search engine, on 2,938 paragraphs. Licence CC-BY-SA-3.0.

    62 % are answered yes. Questions are in lower case, without a question mark, which is put behind them.
    """
    rows = json_lines(dataset(home, "boolq", progress))
    answers = {"False": 0, "True": 1}
    return [
        Question(f"boolq/{i}", row["title"], f"{row['passage']}\nQuestion: {row['question']}?", ("no", "yes"), answers[row["answer"]])
        for i, row in enumerate(rows)
    ]


def hellaswag(home: Home, progress: FetchProgress) -> list[Question]:
    """HellaSwag's validation part: 10,042 beginnings (3,243 video captions, 6,799 how-to articles) with four endings. Licence MIT.

    Cleaned as lm-eval does it: brackets of the how-to articles are removed (a space behind one stays), the second half of a caption begins
    with a capital. Beginnings from one source, or with the same words, are one document. Three endings were written by a machine, and
    picked because another machine took them for real; people find the right one 96 times in 100.
    """
    rows, groups = _arrow(dataset(home, "hellaswag", progress)), Groups()
    questions = []
    for i, row in enumerate(rows):
        ask = _wikihow(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
        groups.add(str(i), (row["source_id"], ask))
        questions.append(Question(f"hellaswag/{i}", "", ask, tuple(map(_wikihow, row["endings"])), int(row["label"])))
    return [replace(question, group=groups.of(str(i))) for i, question in enumerate(questions)]


def piqa(home: Home, progress: FetchProgress) -> list[Question]:
    """PIQA: 1,500 of the 1,838 questions of its validation part, each with two ways to do something. Licence AFL-3.0.

    Some solutions end in a space; it is removed, since no model should win by it.
    """
    return _lettered(home, "piqa", progress)


def openbookqa(home: Home, progress: FetchProgress) -> list[Question]:
    """OpenBookQA's test part: 500 questions of school science with four answers. Licence Apache-2.0.

    Many questions are beginnings of sentences that the answer completes; some end in a space, which is removed.
    """
    return _lettered(home, "openbookqa", progress)


def mmlu(home: Home, progress: FetchProgress) -> list[Question]:
    """A sample of MMLU's test part: 50 questions from each of its 57 exams, 2,850 with four answers. Licence MIT.

    A question doesn't name its exam, 8 questions stand there twice, and two have two answers that read the same (both wrong).
    """
    return _lettered(home, "mmlu", progress)


def imdb(home: Home, progress: FetchProgress) -> list[Question]:
    """A sample of IMDB: 200 film reviews, 103 positive and 97 negative, 220 to 5,800 characters. The authors state no licence.

    Reviews hold line breaks as `<br />`, which become spaces.
    """
    path = dataset(home, "imdb", progress)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [" ".join(row["text"].replace("<br />", " ").split()) for row in rows]
    return [
        Question(f"imdb/{i}", text, text, ("negative", "positive"), int(row["label"]))
        for i, (row, text) in enumerate(zip(rows, texts, strict=True))
    ]


def sst2(home: Home, progress: FetchProgress) -> list[Question]:
    """SST-2's validation part: 872 sentences of film reviews, 444 positive and 428 negative. The authors state no licence.

    They are in lower case with spaces around punctuation, and some are parts of sentences.
    """
    rows = _arrow(dataset(home, "sst2", progress))
    return [
        Question(f"sst2/{row['idx']}", row["sentence"], row["sentence"].strip(), ("negative", "positive"), row["label"]) for row in rows
    ]


def first_sentence(text: str) -> str:
    """Return the text up to the first sentence end (.?!) that a new sentence follows, and no further than the first line."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    match = _SENTENCE_END.search(line)
    return line[: match.end()] if match else line


def cut_at_line(text: str, characters: int) -> str:
    """Return the lines that fit into so many characters; the first one is cut if it alone is longer."""
    if len(text) <= characters:
        return text
    lines = text[: characters + 1].rpartition("\n")[0]
    return lines or text[:characters]


def _xsum(home: Home, progress: FetchProgress) -> list[dict[str, Any]]:
    return [row for row in json_lines(dataset(home, "xsum", progress)) if row["document"].strip()]


def _lettered(home: Home, name: str, progress: FetchProgress) -> list[Question]:
    """Read rows whose options are one text, `A. …\\nB. …`, and whose answer is one of these lines."""
    questions = []
    for i, row in enumerate(json_lines(dataset(home, name, progress))):
        _, *pieces = _OPTION.split(row["options"])
        options = [f"{letter}. {text}" for letter, text in zip(pieces[::2], pieces[1::2], strict=True)]
        texts = tuple(option[3:].strip() for option in options)
        questions.append(Question(f"{name}/{i}", row["question"], row["question"].strip(), texts, options.index(row["answer"])))
    return questions


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    return re.compile(r"\[.*?\]"), re.compile("  ")


def _wikihow(text: str) -> str:
    """Clean a HellaSwag text, step by step as lm-eval does."""
    brackets, double = _patterns()
    return double.sub(" ", brackets.sub("", text.strip().replace(" [title]", ". ")))


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line. Raises PullError."""
    try:
        with path.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
        raise PullError(str(path), "must hold one JSON object a line", error, "Delete it; it will be fetched again.") from error


def _arrow(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ipc
    except ImportError as error:
        rule = "Reading this data set needs pyarrow, which is not installed"
        raise ConfigError("pyarrow", rule, "", how_to_install("measure")) from error
    with path.open("rb") as file, ipc.open_stream(file) as stream:
        rows: list[dict[str, Any]] = stream.read_all().to_pylist()
    return rows
