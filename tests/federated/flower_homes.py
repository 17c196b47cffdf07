"""Homes of a federation as processes of their own, which reach their coordinator over Flower. They learn as homes.py does.

python -m tests.federated.flower_homes FOLDER SEAT ADDRESS      (one home; it ends with its input)
python -m tests.federated.flower_homes FOLDER                   (three homes and a coordinator; prints what they come to)
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingle.core.digest import digest_bytes
from ingle.core.errors import IngleError
from ingle.federated.flower.ends import FlowerLink, flower_link, flower_node
from ingle.federated.invitation import Invitation, from_text, to_text
from ingle.federated.rounds import EndedRound, Round, gather, run_round
from ingle.federated.terms import unpack
from ingle.federated.transport import Ask, local
from ingle.ledger.keys import KeyRing, Signer, load_ring, new_signer, save_ring
from tests.federated.homes import BASE, Learner, invited
from tests.waiting import PATIENCE_S

DEADLINE_S = PATIENCE_S
ROOT = Path(__file__).parents[2]


def founded(folder: Path, homes: int = 3) -> Invitation:
    """Keys for so many homes, and their invitation."""
    signers = [new_signer() for _ in range(homes)]
    for seat, signer in enumerate(signers):
        (folder / str(seat)).mkdir(parents=True)
        save_ring(folder / str(seat), KeyRing((signer.verifier,), (signer,)))
    invitation = invited(signers)
    (folder / "invitation.toml").write_text(to_text(invitation), "utf-8")
    return invitation


def signer_of(folder: Path, seat: int) -> Signer:
    return load_ring(folder / str(seat)).signers[0]


def learned(home: Learner) -> str:
    return digest_bytes(b"".join(home.factors[name].tobytes() for name in sorted(home.factors)))


@dataclass
class Course:
    """What rounds came to."""

    ended: list[EndedRound] = field(default_factory=list)
    complaints: list[tuple[int, str]] = field(default_factory=list)
    learned: set[str] = field(default_factory=set)
    """Digests of what the homes have in the end."""

    @property
    def verdicts(self) -> list[str]:
        return [ended.round.verdict.digest if ended.round.verdict else ended.round.failure for ended in self.ended]

    @property
    def totals(self) -> list[str]:
        return [digest_bytes(ended.round.total) for ended in self.ended]

    def complain(self, seat: int, error: IngleError) -> None:
        self.complaints.append((seat, str(error)))


def rounds(invitation: Invitation, ask: Ask, more: Callable[[int], bool], deadline_s: float = DEADLINE_S) -> Course:
    """Run rounds over a transport while there should be more, which is asked with how many there were."""
    course, terms = Course(), invitation.terms()
    joined = tuple(gather(terms, ask, deadline_s, course.complain))
    base, probe = BASE, Learner(0, invitation, lambda _: None)
    while more(len(course.ended)):
        number = len(course.ended) + 1
        ended = run_round(Round(terms, number, base, probe.length(number), joined), ask, deadline_s, course.complain)
        course.ended.append(ended)
        if ended.round.verdict is None:
            break
        base = ended.round.verdict.next_base
        total = unpack(ended.round.total, probe.length(number), terms.grid.width)
        probe.standing = probe.standing.after(ended.round.verdict, total)
    return course


def over_local(folder: Path, invitation: Invitation, count: int) -> Course:
    """The same homes in this process."""
    homes = [Learner(seat, invitation, lambda _: None) for seat in range(len(invitation.members))]
    course = rounds(
        invitation, local({home.seat: home.responder(signer_of(folder, home.seat)) for home in homes}), lambda so_far: so_far < count
    )
    course.learned = {learned(home) for home in homes}
    return course


@dataclass(frozen=True)
class Street:
    """A link and the processes of homes at it."""

    link: FlowerLink
    homes: dict[int, "subprocess.Popen[bytes]"]


@contextmanager
def street(folder: Path, invitation: Invitation, listen: str = "127.0.0.1:0") -> Iterator[Street]:
    """A link, with a process for each home at it."""
    with flower_link(folder / "link", signer_of(folder, 0), invitation, listen) as link:
        command = [sys.executable, "-m", "tests.federated.flower_homes", str(folder)]
        homes = {
            seat: subprocess.Popen([*command, str(seat), link.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
            for seat in range(len(invitation.members))
        }
        try:
            yield Street(link, homes)
        finally:
            for home in homes.values():
                with home:
                    home.kill()


def ended(street: Street) -> set[str]:
    """End the homes, and return what each has learned."""
    said = set()
    for home in street.homes.values():
        out, _ = home.communicate(timeout=PATIENCE_S)
        said.add(json.loads(out)["learned"])
    return said


def over_flower(folder: Path, invitation: Invitation, count: int) -> Course:
    """Run rounds with each home in a process of its own."""
    with street(folder, invitation) as now:
        course = rounds(invitation, now.link.ask, lambda so_far: so_far < count)
        course.learned = ended(now)
    return course


def over_killed_flower(
    folder: Path, invitation: Invitation, kills: int, seed: int, pause_s: tuple[float, float]
) -> tuple[Course, Counter[str]]:
    """Run rounds while the link and the nodes of the homes are killed at random moments. Returns what they came to, and who was killed."""
    draw, killed, done = random.Random(seed), Counter[str](), threading.Event()
    with street(folder, invitation) as now:

        def kill() -> None:
            while killed.total() < kills and not done.wait(draw.uniform(*pause_s)):
                pids = [pid for pid in (os.getpid(), *(home.pid for home in now.homes.values())) for pid in children(pid, "flower.super")]
                if pids:
                    pid = draw.choice(pids)
                    killed["link" if pid in children(os.getpid(), "superlink") else "node"] += 1
                    os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            course = rounds(invitation, now.link.ask, lambda so_far: so_far < 3 or killer.is_alive(), 120.0)
        finally:
            done.set()
            killer.join()
        course.learned = ended(now)
    return course, killed


def children(pid: int, name: str) -> list[int]:
    """Processes that a process started, with this in their command. They may end meanwhile."""
    found = []
    with suppress(OSError):
        for one in [one for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]:
            if name in Path(f"/proc/{one}/cmdline").read_text():
                found.append(int(one))
    return found


def be_home(folder: Path, seat: int, address: str) -> None:
    invitation = from_text((folder / "invitation.toml").read_text("utf-8"))
    home, signer = Learner(seat, invitation, lambda _: None), signer_of(folder, seat)
    with flower_node(folder / str(seat) / "node", signer, invitation, address, home.responder(signer)):
        sys.stdin.buffer.read()
    print(json.dumps({"learned": learned(home), "verdicts": [verdict.digest for verdict in home.verdicts]}))


def main(folder: Path) -> None:
    invitation = founded(folder)
    here, there = over_local(folder, invitation, 3), over_flower(folder, invitation, 3)
    said: dict[str, Any] = {
        "verdicts": [here.verdicts, there.verdicts], "totals": [here.totals, there.totals],
        "learned": [sorted(here.learned), sorted(there.learned)], "complaints": there.complaints,
    }  # fmt: skip
    print(json.dumps(said))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        be_home(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
