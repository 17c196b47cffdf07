"""What Flower costs: memory at rest and after large letters, seconds a message and a round, bytes on the wire beside bytes of letters.

A link and its nodes on one machine, which has no network but its own loop (`unshare -rn`): what goes over the loop is all that goes over
the wire, TLS included. Homes learn in NumPy (tests/federated/homes.py), so that a round is the transport's time. A letter of the size of
a real update (2.49 million numbers of 15 bits) goes to all homes and back for the bytes.

python bench/federated_flower.py [--homes 3 10]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness import Figure, finish, show

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT))
UPDATE_BYTES = 2_490_000 * 15 // 8
HEADS = (
    "homes", "link PSS MB", "after", "node PSS MB", "after", "idle CPU %", "CPU ms a letter", "up s", "message s", "round s",
    "wire / letters",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--homes", type=int, nargs="+", default=[3, 10])
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(measured(args.alone)))
        return
    rows: list[tuple[object, ...]] = [HEADS]
    found: dict[str, Any] = {}
    for homes in args.homes:
        command = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, __file__, "--alone", str(homes)]
        got = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        found[str(homes)] = got
        message, round_s = (Figure(tuple(got[name])) for name in ("message_s", "round_s"))
        rows.append(
            (
                homes,
                *got["link_mb"],
                *(max(some) for some in got["node_mb"]),
                got["idle_percent"],
                got["letter_cpu_ms"],
                got["up_s"],
                str(message),
                str(round_s),
                got["wire"],
            )
        )
    show("Flower", rows)
    finish("federated_flower", found)


def measured(homes: int) -> dict[str, Any]:
    """Figures of a federation of so many homes, in this process and its children."""
    from ingle.federated.flower.ends import flower_link, flower_node
    from ingle.federated.rounds import Round, gather, run_round
    from ingle.ledger.keys import new_signer
    from tests.federated.flower_homes import children
    from tests.federated.homes import BASE, Learner, invited

    signers = [new_signer() for _ in range(homes)]
    invitation = invited(signers)
    learners = [Learner(seat, invitation, lambda _: None) for seat in range(homes)]
    responders = [home.responder(signer) for home, signer in zip(learners, signers, strict=True)]
    echo = [False]
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        begun = time.perf_counter()
        link = stack.enter_context(flower_link(Path(place) / "link", signers[0], invitation))
        nodes = [
            stack.enter_context(
                flower_node(
                    Path(place) / str(seat), signer, invitation, link.address,
                    lambda data, seat=seat: data[::-1] if echo[0] else responders[seat](data),
                )
            )
            for seat, signer in enumerate(signers)
        ]  # fmt: skip
        assert not any(hindrance(120) for hindrance in nodes)
        up_s = time.perf_counter() - begun
        pids = {name: children(os.getpid(), name) for name in ("superlink", "supernode")}
        time.sleep(5)
        idle_mb = memory(pids)
        busy, begun = cpu_s(pids), time.perf_counter()
        time.sleep(20)
        idle = 100 * (cpu_s(pids) - busy) / (time.perf_counter() - begun)
        terms = invitation.terms()
        joined = tuple(gather(terms, link.ask, 60.0, print))
        base, round_s = BASE, []
        for number in range(1, 7):
            begun = time.perf_counter()
            ended = run_round(Round(terms, number, base, learners[0].length(number), joined), link.ask, 60.0, print)
            round_s.append(time.perf_counter() - begun)
            assert ended.round.verdict is not None and len(ended.followed) == homes
            base = ended.round.verdict.next_base
        echo[0] = True
        message_s, busy = [], cpu_s(pids)
        for _ in range(20):
            begun = time.perf_counter()
            assert len(list(link.ask(dict.fromkeys(range(homes), b"x" * 300), 30.0))) == homes
            message_s.append(time.perf_counter() - begun)
        letter_cpu_ms = 1000 * (cpu_s(pids) - busy) / (20 * homes)
        letters, before = {seat: random.Random(seat).randbytes(UPDATE_BYTES) for seat in range(homes)}, wire()
        assert len(list(link.ask(letters, 120.0))) == homes
        return {
            "link_mb": [idle_mb[0], memory(pids)[0]], "node_mb": [idle_mb[1:], memory(pids)[1:]], "up_s": round(up_s, 1),
            "idle_percent": round(idle, 1), "letter_cpu_ms": round(letter_cpu_ms, 1), "message_s": message_s, "round_s": round_s,
            "wire": round((wire() - before) / (2 * homes * UPDATE_BYTES), 3),
        }  # fmt: skip


def cpu_s(pids: dict[str, list[int]]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for some in pids.values() for pid in some]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


def pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024, 1)


def memory(pids: dict[str, list[int]]) -> list[float]:
    """MB of the link, then of each node."""
    return [pss_mb(pid) for some in pids.values() for pid in some]


def wire() -> int:
    """Bytes that went over the loop."""
    [line] = [line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:")]
    return int(line.split()[1])


if __name__ == "__main__":
    main()
