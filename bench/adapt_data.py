"""The corrections that `bench/adapt.py` teaches, made of forms and rows written by hand; `python bench/adapt_data.py` writes them anew.

`data/adapt_dev.txt` and `data/adapt_test.txt` hold blocks, and so do `adapt_dev_other.txt` and `adapt_test_other.txt` in German, French and
Spanish, by another writer; the language stands behind the kind. A block is one relation: seven ways to `ask` for it, four `row`s (thing >
answer > what must occur in an answer for it to count), and what must not change: the same relation of four `other` things, four `also`:
other relations of the same thing, four questions that are `close` in their words, four that everybody knows the answer to. `{x}` is the
thing, `{X}` begins a sentence with it, `{x1}` is its other form (after a ~). Each row is taught in one of the ways to ask, another one each
row, and five of the other six are its paraphrases. Files of one language share no relation, no thing and no form.
"""

import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"
PARAPHRASES = 5


@dataclass(frozen=True)
class Correction:
    """One thing to teach, how it is asked for in other words, and what must be answered as before."""

    id: str
    kind: str
    """`invented`, `changed`, `personal` or `format`."""
    question: str
    answer: str
    accept: tuple[str, ...]
    paraphrases: tuple[str, ...]
    near_misses: tuple[str, ...]


@dataclass(frozen=True)
class Corrections:
    """A file of them."""

    corrections: tuple[Correction, ...]
    unrelated: tuple[str, ...]

    def first(self, number: int) -> "Corrections":
        """The first so many of an order that mixes the kinds, and all the unrelated questions."""
        step = 37  # has no factor in common with 60 and 100, so all are visited
        order = [self.corrections[i * step % len(self.corrections)] for i in range(len(self.corrections))]
        return Corrections(tuple(order[:number]), self.unrelated)


def read(name: str) -> Corrections:
    """`dev` or `test`, as it was written by this script."""
    path = DATA / f"adapt_{name}.json"
    if not path.exists():
        raise SystemExit(f"{path} is not there; see {Path(__file__).name}")
    file = json.loads(path.read_text(encoding="utf-8"))
    lists = ("accept", "paraphrases", "near_misses")
    made = (Correction(**{key: tuple(value) if key in lists else value for key, value in row.items()}) for row in file["corrections"])
    return Corrections(tuple(made), tuple(file["unrelated"]))


def hit(text: str, accept: tuple[str, ...]) -> bool:
    """Whether one of the accepted strings occurs in it, as whole words, in whatever case."""
    return any(re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text, re.IGNORECASE) for part in accept)


def write(name: str) -> Corrections:
    """The JSON file of `adapt_NAME.txt`. Raises ValueError where a question gives its answer away or a probe is taught."""
    corrections: list[Correction] = []
    unrelated: list[str] = []
    blocks = (DATA / f"adapt_{name}.txt").read_text(encoding="utf-8").split("\n\n")
    for block in blocks:
        if block.startswith("unrelated:"):
            unrelated = _parts(block.removeprefix("unrelated:"))
        elif block.startswith("="):
            corrections += _relation(block, f"{name}-{len(corrections) // 4:02d}")
    made = Corrections(tuple(corrections), tuple(unrelated))
    _check(made)
    text = json.dumps({"corrections": [asdict(one) for one in corrections], "unrelated": unrelated}, ensure_ascii=False, indent=1)
    (DATA / f"adapt_{name}.json").write_text(text + "\n", encoding="utf-8")
    return made


def _relation(block: str, prefix: str) -> list[Correction]:
    lines = block.splitlines()
    fields: dict[str, list[str]] = {}
    rows = []
    for line in lines[1:]:
        key, _, text = line.partition(":")
        if key == "row":
            rows.append([part.strip() for part in text.split(" > ")])
        else:
            fields[key] = _parts(text)
    if len(fields["ask"]) != PARAPHRASES + 2 or any(len(fields[key]) != 4 for key in ("other", "also", "close", "known")) or len(rows) != 4:
        raise ValueError(f"{prefix}: {lines[1][:60]} has not as many forms as it must have")
    return [_correction(fields, row, i, f"{prefix}-{i}", lines[0][1:].strip()) for i, row in enumerate(rows)]


def _correction(fields: dict[str, list[str]], row: list[str], i: int, id_: str, kind: str) -> Correction:
    thing, answer = row[:2]
    accept = tuple(row[2].split(" / ")) if len(row) > 2 else (answer,)
    ways = [_put(way, thing) for way in fields["ask"]]
    asked = ways[2 * i % 7]
    left = [way for way in ways if way != asked]
    dropped = left[(3 * i + 1) % 6]
    near = (
        _put(fields["ask"][(2 * i + i % 2) % 7], fields["other"][i]), _put(fields["also"][i], thing),
        _put(fields["also"][(i + 1) % 4], thing), fields["close"][i], fields["known"][i],
    )  # fmt: skip
    return Correction(id_, kind, asked, answer, accept, tuple(way for way in left if way != dropped), near)


def _put(form: str, thing: str) -> str:
    long, _, other = (part.strip() for part in thing.partition("~"))
    capital = long[0].upper() + long[1:]
    made = form.replace("{x1}", other).replace("{x}", long).replace("{X}", capital)
    return made[0].upper() + made[1:]


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(" | ")]


def _check(made: Corrections) -> None:
    taught = {q for one in made.corrections for q in (one.question, *one.paraphrases)}
    for one in made.corrections:
        for question in (one.question, *one.paraphrases):
            if hit(question, one.accept):
                raise ValueError(f"{one.id}: the question {question!r} gives the answer away")
        if not hit(one.answer, one.accept):
            raise ValueError(f"{one.id}: its own answer {one.answer!r} would not count")
        if both := taught & set(one.near_misses):
            raise ValueError(f"{one.id}: {both} is taught")
        if len({one.question, *one.paraphrases, *one.near_misses}) != 1 + PARAPHRASES + 5:
            raise ValueError(f"{one.id}: a question occurs twice")
    if len(set(made.unrelated)) not in (0, 60) or taught & set(made.unrelated):
        raise ValueError(f"unrelated: must be 60 that aren't taught, got {len(set(made.unrelated))}")


if __name__ == "__main__":
    files = [write(name) for name in ("dev", "test", "dev_other", "test_other")]
    texts = [{q for one in file.corrections for q in (one.question, *one.paraphrases, *one.near_misses)} for file in files]
    print(
        json.dumps({"bench": "adapt_data", "corrections": [len(file.corrections) for file in files], "shared": sorted(texts[0] & texts[1])})
    )
    sys.exit(bool(texts[0] & texts[1]))
