"""Calibrates a model for `ingle why`: asks it questions with known answers, and shows how often it was right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingle.explain.odds import Calibration

QUESTIONS = 170  # planted facts; the other kinds of questions go with them, see explain/calibrate.py


def calibrate(name: str, as_json: bool, overrides: Sequence[str]) -> None:
    """Ask the model, and keep in the home what was found out. Raises Interrupted after Ctrl-C: the same command then goes on."""
    from ingle.adapt.memory import placed
    from ingle.app.choose import choose
    from ingle.app.house import enter
    from ingle.app.settings import read_settings
    from ingle.cli.choose import open_watched
    from ingle.cli.interrupt import Interrupt
    from ingle.cli.output import note, print_json
    from ingle.cli.progress import watching
    from ingle.core.config import to_table
    from ingle.explain.calibrate import answers_of, ask_known, calibration_of, known_questions
    from ingle.explain.direct import direct_reader
    from ingle.explain.odds import keep_calibration
    from ingle.measure.data_sets import boolq

    home = enter()
    settings = read_settings(home, overrides, {"chat.model": name})
    model = open_watched(home, choose(home, settings.chat.model), settings.chat)
    with watching() as watch, Interrupt() as interrupt:
        questions = known_questions(boolq(home, watch.bytes), "train", QUESTIONS)
        reader = direct_reader(interrupt.asked)
        rows = ask_known(reader, model, questions, placed, answers_of(model, home), watch.pieces)
    calibration = calibration_of(model.digest, rows)
    keep_calibration(home, calibration)
    if as_json:
        print_json(to_table(calibration))
        return
    _show(calibration)
    note(f"`ingle why` now says how often {model.name} is right about questions like the one you asked.")


def _show(calibration: "Calibration") -> None:
    from ingle.cli.output import print_table
    from ingle.explain.words import KIND_WORDS
    from ingle.measure.intervals import wilson

    rows = []
    for one in calibration.kinds:
        interval = wilson(one.right, one.n)
        rows.append((KIND_WORDS[one.kind], f"{one.right} of {one.n}", f"{100 * interval.low:.0f} … {100 * interval.high:.0f} in 100"))
    print_table(("questions", "right", ""), rows)
