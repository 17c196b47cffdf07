"""Whisper (arXiv 2212.04356) by CTranslate2: a window of at most 30 s of sound → words with their times.

Whisper always reads 30 s, most of which is silence where somebody asks one question. Here the encoder gets the sound and six seconds of
silence alone: a quarter of the work. Trained on 30 s, it sometimes says a sentence again and again in a short window. So what it says is
checked (`_doubtful`); in doubt it reads all of the 30 s, and then tries again with chance (as the original does).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle.core.errors import RequestError
from ingle.media.ears.mel import HOP, RATE, log_mel
from ingle.media.speech import HeardSegment, HeardWord, Window

WINDOW_S = 30.0
# Silence after the sound. With less than 5 s, sentences are repeated more often.
PADDING_S = 6.0
_STEP_S = 0.02  # unit of Whisper's own times
_BEAMS = 5
_CHANCES = (0.0, 0.4, 0.8)  # temperatures of the attempts with the whole window
_SILENCE = 10 ** (-54 / 20)  # a sound whose loudest 30 ms are below −54 dB of full scale says nothing
_UNLIKELY = -1.0  # the original's limit: mean log-probability of a token
# Nobody speaks if that is so likely and the words are less likely than the second number, or loop. People who say a thing again and again
# stay below the third; another language gives the English ears up to the last. Seen with noise, hum, clicks, sirens and chords (0.4 to
# 0.97), and with voices (0.00 to 0.25).
_NO_SPEECH, _MAYBE, _SURELY_SPEECH, _SURELY_NOBODY = 0.4, -0.7, 0.2, 0.75
_LETTERS_PER_S = 32  # nobody speaks faster
_MOST_TOKENS, _TOKENS_PER_S, _MOST_PROMPT = 224, 12, 200


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One decoding."""

    tokens: tuple[int, ...]
    text: str
    mean: float  # mean log-probability of its tokens
    no_speech: float


@dataclass(frozen=True)
class Whisper:
    """One model."""

    model: Any  # CTranslate2's
    tokenizer: Any  # the tokenizers library's

    def hear(self, samples: npt.NDArray[np.float32], language: str | None, translate: bool, prompt: str, words: bool, last: bool) -> Window:
        """Return what is said in at most 30 s at 16 kHz.

        `prompt`: words that are likely, or that were said before. `words`: whether to time each word. `last`: whether the sound ends here;
        else a sentence that the window cuts off is left to the next window, which begins at `Window.used_s`.
        """
        seconds = len(samples) / RATE
        if loudness(samples).max() < _SILENCE:
            return Window(language or "", seconds, ())
        unknown = language is None and self.model.is_multilingual  # languages are told apart better in the whole window
        short = WINDOW_S if unknown else min(WINDOW_S, seconds + PADDING_S)
        encoded = self._encode(samples, short)
        language = language or self._language(encoded)
        start = self._start(language, translate)
        context = self._context(prompt)
        found = self._attempt(encoded, context + start, seconds, 0.0)
        if not _nobody(found) and _doubtful(found, seconds):
            encoded, attempts = self._encode(samples, WINDOW_S), list[_Attempt]()
            said_twice = _repeats(found.text)
            for chance in _CHANCES:
                attempts.append(self._attempt(encoded, (context if not chance else []) + start, seconds, chance))
                if _nobody(attempts[-1]) or not _doubtful(attempts[-1], seconds, said_twice and not chance):
                    break
            else:
                attempts.sort(key=lambda one: (len(one.text) <= _most_letters(seconds), one.mean))
            found = attempts[-1]
        if _nobody(found) or (_loops(found.text) and (found.no_speech > _SURELY_SPEECH or len(found.text) > _most_letters(seconds))):
            return Window(language, seconds, (), 0.0 if found.no_speech > _SURELY_NOBODY else _UNLIKELY)
        segments, used_s = self._segments(found.tokens, seconds, last)
        if segments and _goes_on(samples, ended_s := segments[-1][0].end_s):
            used_s = ended_s  # it stopped listening before the end
        if words:
            segments = [self._timed(encoded, start, segment, len(samples)) for segment in segments]
        return Window(language, used_s, tuple(segment for segment, _ in segments), found.mean)

    def _encode(self, samples: npt.NDArray[np.float32], window_s: float) -> Any:
        import ctranslate2

        padded = np.zeros(round(window_s * RATE) // (2 * HOP) * 2 * HOP, np.float32)
        padded[: len(samples)] = samples[: len(padded)]
        return self.model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(log_mel(padded)[None])), to_cpu=False)

    def _language(self, encoded: Any) -> str:
        if not self.model.is_multilingual:
            return "en"
        return str(self.model.detect_language(encoded)[0][0][0]).strip("<|>")

    def _start(self, language: str, translate: bool) -> list[int]:
        names = ["<|startoftranscript|>"]
        if self.model.is_multilingual:
            names += [f"<|{language}|>", "<|translate|>" if translate else "<|transcribe|>"]
        ids = [self.tokenizer.token_to_id(name) for name in names]
        if None in ids:
            raise RequestError("language", "must be one that Whisper knows, by its code: en, de, fr, zh, …", language)
        return ids

    def _context(self, prompt: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(" " + prompt.strip(), add_special_tokens=False).ids if prompt.strip() else []
        known = [id_ for id_ in ids if id_ < self._end]
        return [self.tokenizer.token_to_id("<|startofprev|>"), *known[-_MOST_PROMPT:]] if known else []

    @cached_property
    def _end(self) -> int:
        """The id of the token that ends a text; all above are controls and times."""
        return int(self.tokenizer.token_to_id("<|endoftext|>"))

    @cached_property
    def _zero(self) -> int:
        """The id of the time 0.00 s."""
        return int(self.tokenizer.token_to_id("<|notimestamps|>")) + 1

    def _attempt(self, encoded: Any, prompt: list[int], seconds: float, chance: float) -> _Attempt:
        most = min(_MOST_TOKENS, 16 + round(_TOKENS_PER_S * seconds))
        result = self.model.generate(
            encoded,
            [prompt],
            beam_size=1 if chance else _BEAMS,
            num_hypotheses=1,
            sampling_temperature=chance or 1.0,
            sampling_topk=0 if chance else 1,
            max_length=min(2 * _MOST_TOKENS, max(2 * most, len(prompt) + most)),  # it gives half of it to the prompt
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        tokens = tuple(result.sequences_ids[0])
        text = self._text(tokens)
        return _Attempt(tokens, text, result.scores[0] * len(tokens) / (len(tokens) + 1), result.no_speech_prob)

    def _text(self, tokens: tuple[int, ...]) -> str:
        return str(self.tokenizer.decode([token for token in tokens if token < self._end])).strip()

    def _segments(self, tokens: tuple[int, ...], seconds: float, last: bool) -> tuple[list[tuple[HeardSegment, tuple[int, ...]]], float]:
        """Return the pieces between times, each with its tokens, and how much of the window they use up."""
        found: list[tuple[HeardSegment, tuple[int, ...]]] = []
        begin, text = 0.0, list[int]()
        for token in tokens:
            if token < self._end:
                text.append(token)
            elif token >= self._zero:
                time = min((token - self._zero) * _STEP_S, seconds)
                if text:
                    found.append((HeardSegment(begin, max(begin, time), self._text(tuple(text))), tuple(text)))
                    text = []
                begin = time
        ends_open = bool(text) or (len(tokens) > 1 and min(tokens[-2:]) >= self._zero)
        if not last and ends_open and found and 1.0 < begin < seconds:
            return [one for one in found if one[0].text], begin
        if text:
            found.append((HeardSegment(begin, seconds, self._text(tuple(text))), tuple(text)))
        return [one for one in found if one[0].text], seconds

    def _timed(
        self, encoded: Any, start: list[int], one: tuple[HeardSegment, tuple[int, ...]], samples: int
    ) -> tuple[HeardSegment, tuple[int, ...]]:
        """Return a segment with the times of its words, from the decoder's attention (arXiv 2212.04356, app. of the code)."""
        segment, tokens = one
        result = self.model.align(encoded, start, [list(tokens)], samples // HOP, median_filter_width=7)[0]
        place, time = (np.array(column) for column in zip(*result.alignments, strict=True))
        starts = time[np.pad(np.diff(place), (1, 0), constant_values=1).astype(bool)] * _STEP_S
        words, first = list[HeardWord](), 0
        for text, count in self._words(tokens):
            after = first + count
            chance = float(np.mean(result.text_token_probs[first:after]))
            until = float(starts[after]) if after < len(starts) else segment.end_s
            since = float(starts[first]) if first < len(starts) else until
            words.append(HeardWord(since, max(since, min(until, segment.end_s)), text, chance))
            first = after
        return HeardSegment(segment.start_s, segment.end_s, segment.text, tuple(words)), tokens

    def _words(self, tokens: tuple[int, ...]) -> Iterator[tuple[str, int]]:
        """Yield words and how many tokens each has: a new one begins at a space; without spaces, each whole character is one."""
        held: list[int] = []
        for place, token in enumerate(tokens):
            held.append(token)
            text = self.tokenizer.decode(held)
            following = self.tokenizer.decode([tokens[place + 1]]) if place + 1 < len(tokens) else " "
            if "\ufffd" not in text and (following[:1] in (" ", "") or not (text + following).isascii()):
                yield text.strip(), len(held)
                held = []
        if held:
            yield self.tokenizer.decode(held).strip(), len(held)


def open_whisper(folder: Path, threads: int) -> Whisper:
    """Open the model in a folder of its part, in int8."""
    import ctranslate2
    from tokenizers import Tokenizer

    model = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="int8", intra_threads=threads, inter_threads=1)
    return Whisper(model, Tokenizer.from_file(str(folder / "tokenizer.json")))


def loudness(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the root mean square of each 30 ms; a shorter sound is one piece."""
    frame = RATE * 3 // 100
    whole = len(samples) // frame * frame
    rows = samples[:whole].reshape(-1, frame) if whole else samples.reshape(1, -1)
    levels: npt.NDArray[np.float64] = np.sqrt((rows.astype(np.float64) ** 2).mean(axis=1)) if len(samples) else np.zeros(1)
    return levels


def _goes_on(samples: npt.NDArray[np.float32], ended_s: float) -> bool:
    """Return whether half a second of the sound is loud, 1.5 s or more after the words have ended."""
    rest = samples[int(ended_s * RATE) :]
    if ended_s < 1.0 or len(rest) < 1.5 * RATE:
        return False
    return int((loudness(rest) > 0.2 * loudness(samples).max()).sum()) * 0.03 > 0.5


def _nobody(found: _Attempt) -> bool:
    """Return whether nobody speaks: no words, or such as Whisper makes of noise."""
    if not any(letter.isalnum() for letter in found.text):
        return True
    return found.no_speech > _NO_SPEECH and (found.mean < _MAYBE or _repeats(found.text) or _loops(found.text))


def _doubtful(found: _Attempt, seconds: float, said_twice: bool = False) -> bool:
    """Return whether an attempt looks wrong: unlikely, too much text for so short a sound, or a sentence that was just said.

    `said_twice`: whether the other window heard a sentence twice as well. Two windows seldom make up the same, so somebody said it twice.
    """
    repeats = _repeats(found.text) and not said_twice
    return found.mean < _UNLIKELY or len(found.text) > _most_letters(seconds) or repeats or _loops(found.text)


def _most_letters(seconds: float) -> float:
    """Return more letters than anybody says in so many seconds."""
    return 12 + _LETTERS_PER_S * seconds


def _loops(text: str) -> bool:
    """Return whether a text says one thing four times in a row, or draws one letter out."""
    return bool(re.search(r"(\w)\1{5}|(?=.{0,80}\w)(.{2,80}?)\2{3}", text.lower()))


def _repeats(text: str) -> bool:
    """Return whether a text says three words or more twice in a row."""
    words = re.sub(r"[^\w' ]", " ", text.lower()).split()
    return any(
        words[first : first + size] == words[first + size : first + 2 * size]
        for size in range(3, len(words) // 2 + 1)
        for first in range(len(words) - 2 * size + 1)
    )
