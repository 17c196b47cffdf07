"""Runs one journey again and again, and lets another act of the disk fail each time; to be run as a program.

    python -m tests.faults.run JOURNEY FOLDER [EVERY]

Each time is a fork of this process, which has imported everything and started no thread. After each fault another fork looks at the home
as the next start finds it, repeats the journey without faults, and looks again. What is wrong is printed, a line each; the last line is a
JSON table of how many faults were injected, by mode. EVERY = 5 takes every fifth act only.
"""

import contextlib
import importlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from ingle.core.errors import IngleError
from ingle.home.place import Home
from tests.faults.injector import KILLED, Injector
from tests.faults.journeys import JOURNEYS, Crashed, Journey, RefusedCommand, general

PATIENCE_S = 300


def forked(work: Callable[[Callable[[str], None]], None]) -> tuple[int, list[str]]:
    """Runs `work` in a fork, which writes lines; returns its exit code and them."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        import signal

        os.close(reader)
        signal.alarm(PATIENCE_S)
        quiet = os.open(os.devnull, os.O_RDWR)
        for handle in (0, 1, 2):
            os.dup2(quiet, handle)
        say_to = os.fdopen(writer, "w", buffering=1, encoding="utf-8", errors="replace")

        def say(line: str) -> None:
            print(line.replace("\n", "\\n"), file=say_to, flush=True)

        try:
            work(say)
        except BaseException as error:
            say(f"wrong {type(error).__name__}: {error}\n{traceback.format_exc()[-1800:]}")
        say_to.flush()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as file:
        lines = file.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lines


def disturbed(journey: Journey, home: Home, roots: str, nth: int, mode: str) -> Callable[[Callable[[str], None]], None]:
    """The journey with a fault."""

    def work(say: Callable[[str], None]) -> None:
        injector = Injector(roots, nth, mode).install()
        try:
            journey.act(home, lambda what: say(f"ack {what}"))
            say("done")
        except (RefusedCommand, IngleError) as error:
            say(f"refused {error}")
        except Crashed as error:
            say(f"wrong it crashed: {error}")
        except OSError as error:
            say(f"wrong a bare OSError: {error} {traceback.format_exc()[-900:]}")
        if not nth:
            for act in injector.seen:
                say(f"seen {act}")
            say(f"modules {' '.join(sys.modules)}")
        elif len(injector.seen) < nth:
            say("missed")

    return work


def looked_at(journey: Journey, home: Home, acks: list[str]) -> Callable[[Callable[[str], None]], None]:
    """The next start: look, repeat, look again."""

    def work(say: Callable[[str], None]) -> None:
        for what in (*general(home), *journey.check(home, acks)):
            say(f"wrong {what}")
        again = list(acks)
        if not acks and not journey.settled(home):
            try:
                journey.act(home, again.append)
            except (RefusedCommand, IngleError, Crashed) as error:
                say(f"wrong the next attempt fails: {error}")
                return
        for what in (*general(home), *journey.check(home, again)):
            say(f"wrong afterwards {what}")
        if home.staging.is_dir() and any(home.staging.iterdir()):
            say(f"note left in staging: {[path.name for path in home.staging.iterdir()]}")

    return work


def load(lines: list[str]) -> None:
    """Import what the fork before needed, so that the next ones needn't."""
    for line in lines:
        for module in line[8:].split() if line.startswith("modules ") else ():
            if module.startswith(
                ("ingle", "sqlalchemy", "cryptography", "fastapi", "starlette", "torch", "numba", "tokenizers", "safetensors")
            ):
                with contextlib.suppress(ImportError, AttributeError):
                    importlib.import_module(module)


def main(name: str, folder: Path, stride: int) -> int:
    journey, home, template = JOURNEYS[name], Home(folder / "home"), folder / "template"
    roots = f"{folder}/home" if name != "backup" else f"{folder}/"
    folder.mkdir(parents=True, exist_ok=True)
    for what in forked(lambda _say: journey.prepare(home))[1]:
        print(f"prepare: {what}")
    template.mkdir(exist_ok=True)
    shutil.copytree(folder / "home", template / "home") if home.root.exists() else None

    def fresh() -> None:
        shutil.rmtree(home.root, ignore_errors=True)
        if (template / "home").exists():
            shutil.copytree(template / "home", home.root)

    fresh()
    _, lines = forked(disturbed(journey, home, roots, 0, "once"))
    acts = [line[5:] for line in lines if line.startswith("seen ")]
    load(lines)
    for line in (*lines, *forked(looked_at(journey, home, [line[4:] for line in lines if line.startswith("ack ")]))[1]):
        if line.startswith(("wrong", "refused")):
            print(f"undisturbed: {line}")
    counts = dict.fromkeys(journey.modes, 0)
    for turn, nth in enumerate(range(1, len(acts) + 1, stride)):
        for mode in journey.modes if journey.every == 1 else (journey.modes[turn % len(journey.modes)],):
            fresh()
            code, lines = forked(disturbed(journey, home, roots, nth, mode))
            counts[mode] += code == KILLED or "missed" not in lines
            found = [line[6:] for line in lines if line.startswith("wrong ")]
            if code not in (0, KILLED):
                found.append(f"it ended with {code}")
            acks = [line[4:] for line in lines if line.startswith("ack ")]
            code, lines = forked(looked_at(journey, home, acks))
            found += [line[6:] for line in lines if line.startswith("wrong ")]
            if code:
                found.append(f"looking at it ended with {code}")
            for what in found:
                print(f"{mode} at {nth} ({acts[nth - 1]}): {what}", flush=True)
    print(json.dumps({"journey": name, "acts": len(acts), "faults": counts}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).resolve(), int(sys.argv[3]) if len(sys.argv) > 3 else 1))
