"""What is learnt from, as suites of texts: each has a part for training and one that is held out, by document, by a fixed hash.

So a model is measured on what its source held out, by the same split as `ingle measure` makes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import ConfigError
from ingle.home import fetch
from ingle.home.place import Home
from ingle.measure.items import Text, part
from ingle.measure.suites import Suite, find_texts
from ingle.train.examples import Tally, read_records

SUITE = "suite:"


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """All that there is, split."""

    train: tuple[str, ...]
    """Different texts, shuffled by their own hash."""
    held_out: tuple[str, ...]
    """Likewise; none of them is in `train`."""
    suites: tuple[Suite, ...]
    """Each source with its texts at hand, to be measured on."""
    digest: str
    """Of both parts."""


def find_suites(sources: Sequence[str], held_out: float) -> list[Suite]:
    """The sources as suites. Raises ConfigError for a path that isn't there or a suite of something else, NotKept for an unknown one."""
    found, files = [], list[Path]()
    for source in dict.fromkeys(sources):
        if source.startswith(SUITE):
            found.append(find_texts(source.removeprefix(SUITE)))
        else:
            path = Path(source).expanduser().absolute()
            if not path.exists():
                raise ConfigError(source, "is not there", "", "Check the path; suites are written suite:NAME.")
            files.append(path)
    if files:
        found.append(_of_files(files, held_out))
    return found


def read_texts(home: Home, suites: Sequence[Suite], progress: fetch.Progress = fetch.silent) -> Texts:
    """All texts of these sources, fetched where they must be. Raises ConfigError where a part is empty, and what fetching raises.

    A text that stands in several places is held out if one of them is.
    """
    at_hand, train, held_out = [], dict[str, None](), dict[str, None]()
    for suite in suites:
        items: list[Text] = list(suite.read(home, progress))
        at_hand.append(replace(suite, read=lambda *_, items=items: items))
        train.update(dict.fromkeys(item.text for item in part(items, "train", suite.held_out)))
        held_out.update(dict.fromkeys(item.text for item in part(items, "held_out", suite.held_out)))
    left = [text for text in train if text not in held_out and text.strip()]
    for name, texts in (("learn from", left), ("hold out", list(held_out))):
        if not texts:
            got = f"{len(train)} texts for training, {len(held_out)} held out"
            raise ConfigError("data.sources", f"must hold texts to {name}", got, "Give more texts, or raise data.held_out.")
    ordered = tuple(_shuffled(left)), tuple(_shuffled(held_out))
    digest = digest_json([[digest_bytes(text.encode("utf-8", "surrogatepass")) for text in side] for side in ordered])
    return Texts(*ordered, tuple(at_hand), digest)


def _shuffled(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=lambda text: digest_bytes(text.encode("utf-8", "surrogatepass")))


def _of_files(files: Sequence[Path], held_out: float) -> Suite:
    def read(_home: Home, _progress: fetch.Progress) -> list[Text]:
        made = []
        for record in read_records(files, Tally()):
            [text, *_] = record.answers or ("",)
            if record.kind != "text" or not isinstance(text, str):
                raise ConfigError(
                    record.where, "must be a text to learn a language from", record.kind, 'Give lines of {"text": …}, or .txt.'
                )
            made.append(Text(record.digest[:32], record.digest, text))
        return made

    return Suite("texts", "bits per byte of held-out texts", "bits", read, "bits_per_byte", held_out, 100)
