"""SIGKILL for a federation's processes at random moments: no half round, and the end that homes come to undisturbed.

Three homes, each a process with a node, and a link. While rounds run, one of the link and the nodes is killed after 0.2 to 6 seconds,
again and again. Each round must end with the verdict and the sum that the same homes come to in one process, without complaints, and all
homes with the same factors. Exit code 1 if anything differs.

python bench/federated_kills.py [--kills 100] [--seed 0]
"""

import argparse
import sys
import tempfile
from pathlib import Path

from harness import finish, show

sys.path.append(str(Path(__file__).parent.parent))
PAUSE_S = (0.2, 6.0)


def main() -> None:
    from tests.federated.flower_homes import founded, over_killed_flower, over_local

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        invitation = founded(Path(place))
        course, killed = over_killed_flower(Path(place), invitation, args.kills, args.seed, PAUSE_S)
        calm = over_local(Path(place), invitation, len(course.ended))
    same = (course.verdicts, course.totals, course.learned) == (calm.verdicts, calm.totals, calm.learned) and len(calm.learned) == 1
    show("kills", [("killed", "times"), *sorted(killed.items()), ("rounds", len(course.ended))])
    passed = same and not course.complaints and killed.total() == args.kills
    finish(
        "federated_kills",
        {"killed": dict(killed), "rounds": len(course.ended), "complaints": course.complaints, "same": same, "passed": passed},
    )
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()
