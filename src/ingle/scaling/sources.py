"""Sources of text, as suites: each has a part for training and one that is held out, by document, by a fixed hash.

So a model is measured on its sources' held-out texts, by the same split as in `ingle measure`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingle.core.digest import digest_bytes, digest_json
from ingle.core.errors import ConfigError
from ingle.home import fetch
from ingle.home.place import Home
from ingle.measure.data_sets import Text, part
from ingle.measure.suites import Suite, find_texts
from ingle.train.examples import ExampleTally, read_records

SUITE = "suite:"


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """All texts, split."""

    train: tuple[str, ...]
    """Different texts, shuffled by their own hash."""
    held_out: tuple[str, ...]
    """Held-out texts, likewise; none of them is in `train`."""
    suites: tuple[Suite, ...]
    """Each source as a suite with its texts in memory, to measure on."""
    digest: str
    """Digest of both parts."""


def find_suites(sources: Sequence[str], held_out: float) -> list[Suite]:
    """Return the sources as suites. Raises ConfigError for a missing path or a suite of something else, NotKept for unknown ones."""
    suites, files = [], list[Path]()
    for source in dict.fromkeys(sources):
        if source.startswith(SUITE):
            suites.append(find_texts(source.removeprefix(SUITE)))
        else:
            path = Path(source).expanduser().absolute()
            if not path.exists():
                raise ConfigError(source, "is not there", "", "Check the path; suites are written suite:NAME.")
            files.append(path)
    if files:
        suites.append(_of_files(files, held_out))
    return suites


def read_texts(home: Home, suites: Sequence[Suite], progress: fetch.FetchProgress = fetch.silent) -> Texts:
    """Read all texts of these sources, fetched where necessary. Raises ConfigError where a part is empty, and the errors of fetching.

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
    def read(_home: Home, _progress: fetch.FetchProgress) -> list[Text]:
        texts = []
        for record in read_records(files, ExampleTally()):
            [text, *_] = record.answers or ("",)
            if record.kind != "text" or not isinstance(text, str):
                raise ConfigError(
                    record.where, "must be a text to learn a language from", record.kind, 'Give lines of {"text": …}, or .txt.'
                )
            texts.append(Text(record.digest[:32], record.digest, text))
        return texts

    return Suite("texts", "bits per byte of held-out texts", "bits", read, "bits_per_byte", held_out, 100)
