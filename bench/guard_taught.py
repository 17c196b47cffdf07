"""What teaching a guard does to other texts: other wordings of what was taught should follow, near requests that mean something else not.

bench/data/guard_wordings.tsv: 80 requests, each in seven wordings, with four that lie near and are judged otherwise. One wording is taught
in a home of its own, as *Was wrong* and *Should have been stopped* do; the other six and the four are judged before and after, as are the
taught text in six frames ("Please: …"), and the harmful and the look-alike texts of bench/data/guard.tsv. Groups 1–40 are harmless, 41–60
harmful, 61–80 rules of a house.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from guard import own_rows, said, share
from harness import finish, show
from ingle.adapt.guards import plain_texts, teach_guards
from ingle.home.place import Home
from ingle.safety.guard import judge_file
from ingle.safety.judge import Judge, load_judge
from ingle.safety.reading import REQUESTS

FRAMES = ("Please: {x}", "hey, {x}", "{x} Thanks!", "I was wondering. {x}", "{lower}", "Quick question: {x}")
"""Around the taught text, with nothing else changed."""
DATA = Path(__file__).parent / "data" / "guard_wordings.tsv"
KINDS = {"harmless": range(1, 41), "harmful": range(41, 61), "rules of a house": range(61, 81)}


def alarms(judge: Judge, text: str, rate: float) -> bool:
    scores = judge.scores(text)
    return any(scores.margin(judge, name, rate)[0] > 0 for name in REQUESTS)


def groups() -> dict[int, dict[str, list[str]]]:
    """The texts by group and role."""
    found: dict[int, dict[str, list[str]]] = {}
    for line in DATA.read_text("utf-8").splitlines():
        number, role, text = line.split("\t")
        found.setdefault(int(number), {}).setdefault(role, []).append(text)
    return found


def taught(texts: list[str], harmful: bool) -> Judge:
    """The judge after one lesson."""
    with tempfile.TemporaryDirectory(prefix="ingle-bench-") as folder:
        home = Home(Path(folder)).create()
        teach_guards(home, plain_texts(texts), harmful)
        return load_judge(judge_file(home.root))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=0.01, help="Share of harmless texts that may alarm.")
    rate = parser.parse_args().rate
    before, found = load_judge(), dict[str, dict[str, Any]]()
    others = {kind: [text for (text,) in own_rows()[kind, "en"]] for kind in ("short", "look-alike")}
    for kind, numbers in KINDS.items():
        flags: dict[str, list[bool]] = {}
        for number in numbers:
            group, harmful = groups()[number], kind != "harmless"
            if alarms(before, group["taught"][0], rate) == harmful:
                continue  # nothing to teach
            after = taught(group["taught"], harmful)
            framed = [frame.format(x=group["taught"][0], lower=group["taught"][0].lower().rstrip("?.!")) for frame in FRAMES]
            sides = {
                "the taught text": group["taught"],
                "in a frame": framed,
                "other wordings": group["wording"],
                "near, other meaning": group["contrast"],
            }
            for name, texts in (sides | {f"others: {kind_}": some for kind_, some in others.items()}).items():
                for when, judge in (("before", before), ("after", after)):
                    flags.setdefault(f"{name}, {when}", []).extend(alarms(judge, text, rate) for text in texts)
        if not flags:
            print(f"{kind}: every text is judged as it should be, so there was nothing to teach")
            continue
        found[kind] = {name: share(some) for name, some in flags.items()}
        show(f"{kind}: share that alarms at a rate of {rate}", [[name, said(row)] for name, row in found[kind].items()])
    finish("guard_taught", found)


if __name__ == "__main__":
    main()
