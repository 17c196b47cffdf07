"""`ingle say`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingle.core.media import Sound

EXAMPLES = """
ingle say "It is five o'clock." --out clock.wav
ingle say letter.md --out letter.mp3 --voice af_heart
ingle "Why is the sky blue?" | ingle say - | aplay
ingle say --voices
"""
_STDIN = "-"


def command(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say; the name of a text file; '-' is standard input.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write it; by default a WAV to standard output.")
    ] = None,
    voice: Annotated[str, typer.Option(help="Its voice; by default the fastest that is kept.")] = "auto",
    speed: Annotated[float, typer.Option(help="1 = as the voice was trained; 0.25 to 4.")] = 1.0,
    format_: Annotated[
        str | None, typer.Option("--format", help="wav, mp3, opus, flac or pcm; by default as the file's name ends.")
    ] = None,
    voices: Annotated[bool, typer.Option("--voices", help="List the voices that are kept.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say a text aloud, into a file or a pipe.

    Marks of Markdown, code and links are read as a person would. `ingle pull voice` brings a voice, `ingle pull kokoro` 28 others.
    """
    from contextlib import closing

    from ingle.app.house import enter
    from ingle.cli.output import print_json
    from ingle.core.errors import ConfigError
    from ingle.core.files import write_atomic
    from ingle.media.sound import FORMATS, encoded, joined
    from ingle.media.speech import Speech, clauses

    with closing(Speech(enter())) as speech:
        if voices:
            print_json(list(speech.voices())) if as_json else print("\n".join(speech.voices()))
            return
        chosen = format_ or (out.suffix[1:].lower().replace("ogg", "opus") if out else "wav")
        if chosen not in FORMATS:
            raise ConfigError("--format", f"must be one of {', '.join(FORMATS)}", chosen or "nothing", "Or let the file's name end in one.")
        if out is None and (as_json or sys.stdout.isatty()):
            raise ConfigError("--out", "A recording is nothing for a terminal", "", "Add --out FILE, or a pipe: | aplay")
        said = list(clauses(iter((_text(text),))))
        if not said:
            raise ConfigError("TEXT", "must hold something that can be spoken", "nothing")
        pieces = _watched(speech.speak((f"{clause}\n\n" for clause in said), voice, speed), len(said))
        if out is None:
            _stream(pieces, chosen)
            return
        sound = joined(pieces)
        data = encoded(sound, chosen)
        write_atomic(out, data)
    if as_json:
        print_json({"file": str(out), "seconds": round(sound.seconds, 2), "clauses": len(said), "bytes": len(data), "format": chosen})
    else:
        print(f"{out} is written: {sound.seconds:.1f} s.")


def _text(text: str) -> str:
    """Return what is to be said: typed, from a file, or from standard input."""
    from ingle.cli.lines import decode, piped
    from ingle.core.files import os_errors

    if text in ("", _STDIN):
        return decode(piped())
    path = Path(text) if len(text) < 1000 and "\n" not in text else None
    if path is None or not path.is_file():
        return text
    with os_errors(path):
        return decode(path.read_bytes(), text)


def _watched(pieces: "Iterator[Sound]", count: int) -> "Iterator[Sound]":
    """Yield the pieces; show how many are made, and the time left."""
    from ingle.cli.progress import watching

    with watching() as watch:
        for done, piece in enumerate(pieces, 1):
            if count > 3:
                watch.pieces("speaking (clauses)", done, count)
            yield piece


def _stream(pieces: "Iterator[Sound]", format_: str) -> None:
    """Write to standard output, each piece as soon as it is made where the format allows it."""
    from ingle.media.sound import encoded, joined, pcm16_of, wav_header

    if format_ not in ("wav", "pcm"):
        sys.stdout.buffer.write(encoded(joined(pieces), format_))
        return
    for number, piece in enumerate(pieces):
        if number == 0 and format_ == "wav":
            sys.stdout.buffer.write(wav_header(piece.rate))
        sys.stdout.buffer.write(pcm16_of(piece))
        sys.stdout.buffer.flush()
