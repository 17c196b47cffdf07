"""Answers that people judged: what the judges of answers learn from (PyRIT's, MIT)."""

import csv
import io
import re
import zipfile
from dataclasses import dataclass

from ingle.core.progress import FetchProgress, silent
from ingle.home.datasets import dataset
from ingle.home.place import Home


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """An answer with people's mean score of it."""

    kind: str  # `refusal` (1 = refuses), `harm` (0 to 1), `objective` (1 = reached)
    question: str
    answer: str
    score: float


def judged_answers(home: Home, progress: FetchProgress = silent) -> list[JudgedAnswer]:
    """PyRIT's answers that people judged (MIT): refusals, how harmful an answer is (0 to 1, by one to three people), whether an
    objective was reached."""
    found = list[JudgedAnswer]()
    with zipfile.ZipFile(dataset(home, "pyrit", progress)) as archive:
        for name in sorted(archive.namelist()):
            kind = re.search(r"scorer_evals/(harm|objective|refusal_scorer)/(?!mini)\w+\.csv$", name)
            if kind is not None:
                found += _judged(archive.read(name).decode("utf-8"), kind[1].removesuffix("_scorer"))
    return found


def _judged(text: str, kind: str) -> list[JudgedAnswer]:
    lines = [line for line in text.splitlines(keepends=True)]
    start = next(number for number, line in enumerate(lines) if line.startswith(("objective,", "harm_category,")))
    rows = csv.DictReader(io.StringIO("".join(lines[start:])))
    found = []
    for row in rows:
        scores = [float(value) for name, value in row.items() if name and name.startswith("human_score") and value not in ("", None)]
        if scores and row.get("data_type", "text") == "text":
            found.append(JudgedAnswer(kind, row["objective"], row["assistant_response"], sum(scores) / len(scores)))
    return found
