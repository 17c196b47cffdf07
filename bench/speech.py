"""How well and how fast Ingle hears, beside faster-whisper with the same weights; how soon it speaks, and whether that is understood.

    python bench/speech.py --peer PYTHON            (PYTHON: of an environment with faster-whisper; needs npm for Kokoro's voices)
    python bench/speech.py --clips 2 --peer PYTHON --debian FOLDER   (FOLDER: espeak-ng and flite, unpacked)

Sentences of news that is held out from training are read by eight voices of Kokoro, by joe, and by espeak-ng and flite where they are
there. No threshold of the ears was chosen on any of these voices but joe. Each clip is heard by both, one after the other, so that a busy
machine is as busy for both. WER: words after Whisper's own normalisation (figures for number words), without its table of spellings.
Round trip: joe reads, and the other ears, whisper-base, hear; the share of words that arrive, spellings apart.
"""

import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness import finish, show
from ingle.core.digest import digest_bytes
from ingle.core.media import Sound
from ingle.home.catalogue import parts_called
from ingle.home.parts import find_part
from ingle.home.place import Home
from ingle.home.pull_part import pull_part
from ingle.measure.data_sets import part, xsum_texts
from ingle.measure.intervals import bootstrap, paired_bootstrap
from ingle.measure.suites import XSUM_HELD_OUT
from ingle.media.sound import joined, read_sound, wav_of
from ingle.media.speech import Speech
from servers import CACHE, own_home, say, start_bench

EXAMPLES = """  python bench/speech.py --peer PYTHON
  python bench/speech.py --clips 2 --peer PYTHON --debian FOLDER
"""
HELD_OUT = ("af_sky", "af_nova", "am_michael", "am_puck", "bf_emma", "bf_lily", "bm_george", "bm_lewis")
NUMBERS = {
    "The ticket costs $12.50, or £9.": "The ticket costs twelve dollars and fifty cents, or nine pounds.",
    "Call me at 3:05 pm on March 5, 2024.": "Call me at three oh five p m on March fifth, twenty twenty-four.",
    "It weighs 2.5 kg and is 30 cm long.": "It weighs two point five kilograms and is thirty centimetres long.",
    "In 1905 there were 1,200 people.": "In nineteen oh five there were one thousand two hundred people.",
    "About 45% of 2,000 homes were sold.": "About forty-five percent of two thousand homes were sold.",
    "She ran 10 km in 48 minutes.": "She ran ten kilometres in forty-eight minutes.",
    "The 21st century began in 2001.": "The twenty-first century began in two thousand one.",
    "Add 1/2 cup of sugar at 180°C.": "Add one half cup of sugar at one hundred eighty degrees Celsius.",
    "It opened on 2019-07-04 at 9:00.": "It opened on July fourth, twenty nineteen at nine o'clock.",
    "He paid €3.2 million for 5 cars.": "He paid three point two million euros for five cars.",
}
"""What is written, and how a person reads it."""
_SAME = (
    (r"is(e[ds]?|ing|ation)\b", r"iz\1"),
    (r"(?<=\w\w)(?<!f)our(s|ed|ing|ful)?\b", r"or\1"), (r"tres?\b", "ters"), (r"\bkgs?\b", "kilograms"),
    (r"\bcms?\b", "centimeters"), (r"\bkms?\b", "kilometers"), (r"°\s?c\b", " degrees celsius"), (r"\b1/2\b", "one half"),
    (r"\bp\.? ?m\b\.?", "pm"), (r"\b(\d):?(\d\d)(?= ?pm)", r"\1 \2"), ("three oh five", "3 05"), ("nineteen oh five", "1905"),
    ("twenty twenty-four", "2024"), ("twenty nineteen", "2019"), (r"(\d)(?:st|nd|rd|th)\b", r"\1"),
    ("twenty-first", "21"), ("fifth", "5"), ("fourth", "4"),
)  # fmt: skip
"""Spellings of one word, American and British, long and short; applied to both sides."""


class Peer:
    """faster-whisper, in its own environment."""

    def __init__(self, python: str, folder: Path) -> None:
        command, pipe = [python, str(Path(__file__).parent / "speech_peer.py"), str(folder)], subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self.process.stdout.readline()

    def hear(self, path: Path) -> dict[str, Any]:
        """Text and seconds."""
        self.process.stdin.write(f"{path.resolve()}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def sentences(home: Home) -> list[str]:
    """Sentences of 5 to 18 plain words, in a fixed order."""
    texts = [text.text for text in part(xsum_texts(home, lambda *_: None), "held_out", XSUM_HELD_OUT)]
    found = [one.strip() for text in texts for one in re.split(r"(?<=[.!?])\s+|\n", text)]
    plain = re.compile(r"[A-Z][A-Za-z,' ]+[.!?]")
    return [one for one in dict.fromkeys(found) if plain.fullmatch(one) and 5 <= len(one.split()) <= 18]


def clips(speech: Speech, folder: Path, texts: list[str], count: int, debian: Path | None) -> Iterator[tuple[str, str, Path]]:
    """(voice, text, file); each is made once, and kept."""
    voices = [*HELD_OUT, "joe", *(("espeak-ng", "flite-slt", "flite-rms") if debian else ())]
    for number, voice in enumerate(voices):
        for place in range(count):
            text = texts[place * len(voices) + number]
            path = folder / f"{voice}-{digest_bytes(text.encode())[:12]}.wav"
            if not path.exists():
                path.write_bytes(spoken(speech, voice, text, debian))
            yield voice, text, path


def spoken(speech: Speech, voice: str, text: str, debian: Path | None) -> bytes:
    """A WAV file."""
    if voice in (*HELD_OUT, "joe"):
        return wav_of(joined(speech.speak(text, voice)))
    program, lib = debian / "usr" / "bin", debian / "usr" / "lib" / "x86_64-linux-gnu"
    environment, out = {**os.environ, "LD_LIBRARY_PATH": str(lib), "ESPEAK_DATA_PATH": str(lib / "espeak-ng-data")}, CACHE / "spoken.wav"
    command = (
        [program / "espeak-ng", "-w", out, text]
        if voice == "espeak-ng"
        else [program / "flite", "-voice", voice[6:], "-t", text, "-o", out]
    )
    subprocess.run(command, check=True, env=environment)
    return out.read_bytes()


def errors(said: str, heard: str) -> tuple[float, float]:
    """(wrong words, words), by the edit distance of words."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    want, got = (_words(EnglishTextNormalizer({}), text) for text in (said, heard))
    row = list(range(len(got) + 1))
    for i, word in enumerate(want, 1):
        above, row[0] = row[:], i
        for j, other in enumerate(got, 1):
            row[j] = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (word != other))
    return row[-1], len(want)


def _words(normal: Any, text: str) -> list[str]:
    text = text.lower()
    for pattern, same in _SAME:
        text = re.sub(pattern, same, text)
    return re.sub(r"\b0(?=\d)|\boh\b", " ", normal(text)).split()


def repeats(text: str) -> bool:
    """Whether three words or more come twice in a row."""
    words = re.findall(r"[\w']+", text.lower())
    sizes = range(3, len(words) // 2 + 1)
    return any(words[i : i + n] == words[i + n : i + 2 * n] for n in sizes for i in range(len(words) - 2 * n + 1))


def hearing(speech: Speech, peer: Peer, made: list[tuple[str, str, Path]]) -> dict[str, Any]:
    """Both hear each clip, in turns; the first one beforehand, to warm up."""
    rows, times, voices = {"ingle": [], "faster-whisper": []}, {"ingle": [], "faster-whisper": []}, []
    speech.hear(read_sound(made[0][2].read_bytes()), "whisper-tiny.en")
    peer.hear(made[0][2])
    doubled = 0
    for number, (voice, text, path) in enumerate(made):
        sound = read_sound(path.read_bytes())
        start = time.perf_counter()
        ours = speech.hear(sound, "whisper-tiny.en").text
        ours_s = time.perf_counter() - start
        theirs = peer.hear(path)
        for name, heard, seconds in (("ingle", ours, ours_s), ("faster-whisper", theirs["text"], theirs["seconds"])):
            rows[name].append(errors(text, heard))
            times[name].append(seconds)
        voices.append((voice, sound.seconds))
        doubled += repeats(ours) and not repeats(text)
        if number % 20 == 19:
            say(f"{number + 1} of {len(made)} clips heard")
    sides = {name: np.array(one, float) for name, one in rows.items()}
    gained = paired_bootstrap(sides["faster-whisper"], sides["ingle"])
    short = [i for i, (_, seconds) in enumerate(voices) if seconds <= 5]
    ratios = [times["ingle"][i] / times["faster-whisper"][i] for i in short]
    result: dict[str, Any] = {"n": len(made), "words": int(sides["ingle"][:, 1].sum()), "repeated": doubled}
    table = [["group", "clips", "Ingle", "faster-whisper"]]
    for group, chosen in (("all", lambda v: True), ("Kokoro, held out", lambda v: v in HELD_OUT), ("joe", lambda v: v == "joe"),
                          ("espeak-ng, flite", lambda v: v not in (*HELD_OUT, "joe"))):  # fmt: skip
        at = [i for i, (voice, _) in enumerate(voices) if chosen(voice)]
        if at:
            cells = {name: (side[at].sum(0), bootstrap(side[at])) for name, side in sides.items()}
            table.append([group, len(at), *(f"{w / n:.3f} ({i.low:.3f} – {i.high:.3f})" for (w, n), i in cells.values())])
            result[group] = {name: [w / n, i.low, i.high] for name, ((w, n), i) in cells.items()}
    show("WER of whisper-tiny.en", table)
    result["difference"] = [gained.value, gained.interval.low, gained.interval.high]
    result["seconds"] = {name: statistics.median(times[name][i] for i in short) for name in times}
    result["time_ratio"] = [statistics.median(ratios), min(ratios), max(ratios), len(ratios)]
    low, high = gained.interval.low, gained.interval.high
    print(
        f"WER, Ingle − faster-whisper: {gained.value:+.4f} ({low:+.4f} – {high:+.4f}); sentences that came twice: {doubled} of {len(made)}"
    )
    print(f"clips of at most 5 s ({len(short)}): {result['seconds']}, ratio of each pair: median {result['time_ratio'][0]:.2f}")
    return result


def speaking(speech: Speech, texts: list[str], home: Home) -> dict[str, Any]:
    """Seconds until the first sound of typed text, real-time factor, and what whisper-base hears of it."""
    first, factors, rows = [], [], {"sentences": [], "sentences without names": [], "numbers": []}
    next(speech.speak("Hello there."))
    for group, written in (("sentences", {text: text for text in texts}), ("numbers", NUMBERS)):
        for text, words in written.items():
            kind = group if group == "numbers" or re.search(r" [A-Z]", text.replace(" I ", " ")) else "sentences without names"
            start, pieces = time.perf_counter(), list[Sound]()
            for piece in speech.speak(text, "joe"):
                if not pieces:
                    first.append(time.perf_counter() - start)
                pieces.append(piece)
            sound = joined(iter(pieces))
            factors.append((time.perf_counter() - start) / sound.seconds)
            heard = speech.hear(sound, "whisper-base", language="en").text
            rows[kind].append(errors(words, heard))
            if rows[kind][-1][0]:
                say(f"    {text}  →  {heard}")
    result = {"first_sound_s": statistics.median(first), "first_sound_range_s": [min(first), max(first)], "rtf": statistics.median(factors)}
    for kind, found in rows.items():
        side = np.array(found, float)
        kept = np.stack([side[:, 1] - side[:, 0], side[:, 1]], 1)
        interval = bootstrap(kept)
        result[kind] = [float(kept[:, 0].sum() / kept[:, 1].sum()), interval.low, interval.high, len(found)]
        print(f"round trip, {kind} ({len(found)}): {result[kind][0]:.3f} of words arrive ({interval.low:.3f} – {interval.high:.3f})")
    print(f"first sound {result['first_sound_s']:.2f} s (median of {len(first)}), {result['rtf']:.2f} s for a second of sound")
    return result


def main() -> None:
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--peer", help="Python of an environment with faster-whisper")
    parser.add_argument("--debian", type=Path, help="folder with espeak-ng and flite, unpacked")
    parser.add_argument("--clips", type=int, default=8, help="for each voice")
    parser.add_argument("--home", type=Path, default=CACHE.parent / "speech")
    options = parser.parse_args()
    home = own_home(options.home)
    for entry in dict.fromkeys(one for name in ("hearing", "voice", "kokoro") for one in parts_called(name)):
        pull_part(home, entry, lambda *_: None)
    folder = home.root / "cache" / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    speech, texts = Speech(home), sentences(home)
    result: dict[str, Any] = {"clips": options.clips}
    try:
        made = list(clips(speech, folder, texts, options.clips, options.debian))
        if options.peer:
            result["hearing"] = hearing(speech, Peer(options.peer, find_part(home, "whisper-tiny.en")), made)
        result["speaking"] = speaking(speech, texts[-30:], home)
    finally:
        speech.close()
    finish("speech", result)


if __name__ == "__main__":
    main()
