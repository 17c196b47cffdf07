"""`ingle see`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ingle.home.kept import Kept
    from ingle.home.place import Home

EXAMPLES = """
ingle see photo.jpg
ingle see apple.png "What colour is it?"
ingle see *.png "Which words describe it? Answer with a list." --json
"""
_QUESTION = "What does the picture show?"
_ENDINGS = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif", ".bmp": "image/bmp"}


def command(
    files: Annotated[list[str], typer.Argument(metavar="FILE… [QUESTION]", help="Pictures, and last what to ask about each.")],
    model: Annotated[str | None, typer.Option(help="A model that sees; by default one that is kept here.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON.")] = False,
) -> None:
    """Ask a model about pictures, one answer a file.

    A last word that is no file is the question.
    """
    from ingle.app.house import enter
    from ingle.cli.output import print_json, printable

    paths, question = _told(files)
    home = enter()
    kept = _sighted(home, model)
    rows = _answers(home, kept, paths, question, max_tokens)
    if as_json:
        print_json({"model": kept.name, "question": question, "answers": rows})
        return
    for row in rows:
        print(f"{row['file']}: {printable(row['answer'])}" if len(rows) > 1 else printable(row["answer"]))


def _told(files: list[str]) -> tuple[list[Path], str]:
    """Return the files, and the question. Raises ConfigError for a file that isn't there."""
    from ingle.core.errors import ConfigError

    *_, last = files
    asked = not Path(last).expanduser().exists() and (len(files) > 1 or " " in last)
    paths = [Path(name).expanduser() for name in (files[:-1] if asked else files)]
    if missing := [path for path in paths if not path.is_file()]:
        raise ConfigError(str(missing[0]), "There is no such file", "", "Name pictures, then a question in quotes.")
    if not paths:
        raise ConfigError("FILE", "Name at least one picture", "", "For example: ingle see photo.jpg")
    return paths, last if asked else _QUESTION


def _sighted(home: "Home", name: str | None) -> "Kept":
    """Return the model of that name, or the first kept one that has a sight. Raises NotKept if there is none."""
    from ingle.core.errors import NotKept
    from ingle.home.deltas import get_delta
    from ingle.home.kept import get_kept, list_models

    if name is not None:
        return get_kept(home, name)
    for kept in list_models(home, lambda *_: None):
        if any(get_delta(home, digest).kind == "sight" for digest in kept.deltas):
            return kept
    raise NotKept("a model that sees", "is not kept in this home", "", "Run: ingle pull sight")


def _answers(home: "Home", kept: "Kept", paths: list[Path], question: str, max_tokens: int) -> list[dict[str, Any]]:
    """Ask about each file."""
    from ingle.core.files import os_errors
    from ingle.core.message import ImagePart, Message, Request, TextPart
    from ingle.engine.answer import write
    from ingle.engine.loading import Opener

    asked = []
    for path in paths:
        with os_errors(path):
            part = ImagePart(path.read_bytes(), _ENDINGS.get(path.suffix.lower(), "image/png"))
        asked.append(Request((Message("user", (part, TextPart(question))),), max_tokens=max_tokens))
    answers = dict(write(Opener()(home, kept), asked))
    return [{"file": str(path), "answer": answers[number].strip()} for number, path in enumerate(paths)]
