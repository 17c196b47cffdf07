"""`ingle hear`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ingle.core.progress import Watcher
    from ingle.media.speech import Heard, Speech

EXAMPLES = """
ingle hear question.wav
ingle hear interview.mp3 --format srt > interview.srt
ingle hear brief.ogg --language de --translate   (what it says, in English)
ingle hear *.flac --format vtt --out subtitles
ingle hear talk.wav --words --json
arecord -d 5 -f S16_LE -r 16000 | ingle hear -
"""
_STDIN = "-"


def command(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Recordings: WAV, FLAC, Ogg or MP3; '-' is standard input.")],
    format_: Annotated[str, typer.Option("--format", help="txt, srt, vtt or json.")] = "txt",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a file for each recording into this folder, instead of printing.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="What is spoken, such as en or de; by default it is found out.")] = None,
    translate: Annotated[bool, typer.Option("--translate", help="Translate into English.")] = False,
    words: Annotated[bool, typer.Option("--words", help="With json: the times of each word.")] = False,
    prompt: Annotated[str, typer.Option(help="Names and words that are likely in it.")] = "",
    model: Annotated[str, typer.Option(help="auto, whisper-tiny.en (English) or whisper-base (99 languages).")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Write down what recordings say.

    One that can't be read is reported, and the others are heard. `ingle pull hearing` brings what it needs.
    """
    from contextlib import closing

    from ingle.app.house import enter
    from ingle.cli.output import complain, note, print_json
    from ingle.cli.progress import watching
    from ingle.core.errors import ConfigError, IngleError
    from ingle.media.speech import TRANSCRIPTS, Speech

    format_ = "json" if as_json else format_
    if format_ not in (*TRANSCRIPTS, "json"):
        raise ConfigError("--format", f"must be one of {', '.join(TRANSCRIPTS)}, json", format_)
    tables, fault = list[dict[str, Any]](), None
    with closing(Speech(enter())) as speech, watching() as watch:
        for file in files:
            try:
                heard = _hear(speech, file, watch, model, language, translate, prompt, words)
                tables += _put(heard, file, format_, out, len(files) > 1)
            except IngleError as error:
                if len(files) == 1:
                    raise
                note(f"{file} was not heard:")
                complain(error)
                fault = error
    if format_ == "json" and out is None:
        print_json(tables[0] if len(files) == 1 else tables)
    if fault is not None:
        raise typer.Exit(fault.exit_code)


def _hear(
    speech: "Speech", file: str, watch: "Watcher", model: str, language: str | None, translate: bool, prompt: str, words: bool
) -> "Heard":
    from ingle.core.errors import RequestError
    from ingle.media.sound import read_sound

    try:
        data = sys.stdin.buffer.read() if file == _STDIN else Path(file).read_bytes()
    except OSError as error:
        raise RequestError("file", "must be a recording that can be read", error.strerror) from error
    sound = read_sound(data)
    whole, label = max(1, round(sound.seconds)), f"hearing {_name(file)} (seconds)"
    if whole > 30:
        watch.pieces(label, 0, whole)
    return speech.hear(
        sound, model, language, translate, prompt, words, lambda done: watch.pieces(label, round(done), whole) if whole > 30 else None
    )


def _put(heard: "Heard", file: str, format_: str, out: Path | None, several: bool) -> list[dict[str, Any]]:
    """Print or write one transcript; return its values where they are printed at the end."""
    import json

    from ingle.cli.output import note, printable
    from ingle.core.files import write_atomic
    from ingle.media.speech import TRANSCRIPTS, as_table

    table = {"file": file} | as_table(heard)
    text = json.dumps(table, indent=2, ensure_ascii=False) + "\n" if format_ == "json" else TRANSCRIPTS[format_](heard)
    if out is not None:
        path = out / f"{_name(file)}.{format_}"
        write_atomic(path, text.encode())
        note(f"{path} is written.")
    elif format_ != "json":
        if several:
            print(f"{file}:")
        print(printable(text), end="", flush=True)
    if not heard.segments:
        note(f"{_name(file)}: nobody speaks in it.")
    return [table]


def _name(file: str) -> str:
    return "standard-input" if file == _STDIN else Path(file).name
