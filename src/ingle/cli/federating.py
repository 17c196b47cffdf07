"""The long part of `ingle federate`: a home takes part until all rounds are done, or leads the others."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ingle.core.errors import counted

if TYPE_CHECKING:
    from ingle.core.progress import Watcher
    from ingle.federated.at_home import Taking
    from ingle.federated.consent import Consent
    from ingle.federated.invitation import Invitation
    from ingle.federated.rounds import EndedRound
    from ingle.federated.standing import FederationStanding
    from ingle.home.kept import Kept
    from ingle.home.place import Home
    from ingle.ledger.keys import Signer

LINK, NODE = "link", "node"  # folders of the transport's own files, in the federation's
_LOOK_EVERY_S = 0.5
_PATIENCE_S = 60.0  # enough homes are there, and for so long no other came: it begins without the rest
_LINGER_S = 5.0


def take_part(
    home: "Home", action: Literal["join", "start"], target: str, data: Sequence[Path], yes: bool, link: str | None, resume: bool,
    deadline_s: float, as_json: bool,
) -> None:  # fmt: skip
    """Join a federation, or start it as its coordinator; return when all rounds are done and the delta is kept.

    Raises FederatedError, ConfigError without consent, Interrupted after Ctrl-C; the same command goes on. And the gate's Refused.
    """
    from ingle.cli.interrupt import Interrupt
    from ingle.cli.output import print_json
    from ingle.cli.progress import watching
    from ingle.core.errors import Interrupted
    from ingle.core.files import need_learning

    need_learning()
    invitation = _invitation(home, target)
    kept = _model(home, invitation)
    _may_lead(home, invitation, action, resume)
    with home.lock(f"federated-{invitation.digest[:16]}", timeout_s=0), watching() as watch, Interrupt() as interrupt:
        consent = _agreed(home, invitation, data, yes)
        taking = _taking(home, kept, invitation, consent)
        address = link or invitation.link
        if action == "start":
            standing = _lead(taking, address, interrupt.asked, deadline_s, watch)
        else:
            standing = _follow(taking, address, interrupt.asked, watch)
        if standing.accepted < invitation.rounds:
            cure = "What was learned so far is kept. Run the same command to go on."
            raise Interrupted("federate", "was interrupted", f"after {counted(standing.accepted, 'round')} of {invitation.rounds}", cure)
        made = _keep(taking, standing, watch)
    if as_json:
        print_json({"model": made, "federation": invitation.digest, "rounds": standing.accepted, "base": standing.base})
        return
    print(f"Talk with it: ingle chat {made}")


def _invitation(home: "Home", target: str) -> "Invitation":
    """Return the invitation in a file, or the one of that name which this home agreed to."""
    from ingle.core.files import os_errors
    from ingle.federated.consent import find_federation
    from ingle.federated.invitation import check_invitation, from_text

    path = Path(target)
    if path.suffix == ".toml" or path.is_file():
        with os_errors(path):
            invitation = from_text(path.read_text("utf-8"))
    else:
        invitation = find_federation(home, target)
    check_invitation(invitation, datetime.now(UTC))
    return invitation


def _model(home: "Home", invitation: "Invitation") -> "Kept":
    from ingle.core.errors import FederatedError
    from ingle.home.kept import list_kept

    for kept in list_kept(home):
        if kept.digest == invitation.base:
            return kept
    rule = f"The invitation is about model {invitation.base[:12]}, and this home keeps no such model"
    raise FederatedError("base", rule, "", "Pull the same model as the one who invites, without deltas.")


def _may_lead(home: "Home", invitation: "Invitation", action: str, resume: bool) -> None:
    from ingle.core.errors import ConfigError
    from ingle.ledger.keys import load_ring

    own = any(signer.verifier.public == invitation.coordinator for signer in load_ring(home.keys).signers)
    if action == "start" and not (own or resume):
        cure = "Say `ingle federate join`; or add --resume to go on in place of a coordinator that is gone."
        raise ConfigError("start", "is for the home that invited", "another home", cure)


def _agreed(home: "Home", invitation: "Invitation", data: Sequence[Path], yes: bool) -> "Consent":
    """Return what the owner agreed to: as kept, or asked for now. Raises ConfigError for a no, and without examples."""
    from ingle.app.house import record
    from ingle.cli.output import confirm, note
    from ingle.core.errors import ConfigError
    from ingle.federated.consent import check_unchanged, keep_consent, lent, read_consent, terms_in_words
    from ingle.train.example_files import ExampleTally, read_records

    kept = read_consent(home, invitation)
    if kept is not None and not data:
        check_unchanged(kept)
        return kept
    if not data:
        raise ConfigError("--data", "must name examples to learn from", "nothing", "For example: --data letters.jsonl")
    consent = lent({path: sum(1 for _ in read_records([path], ExampleTally())) for path in data})
    for line in terms_in_words(invitation, consent.examples):
        note(line)
    if not yes and not confirm("Do you agree?"):
        raise ConfigError("consent", "is needed: nothing is sent without it", "no", "Answer y, or add --yes.")
    record(home, keep_consent(home, invitation, consent))
    return consent


def _taking(home: "Home", kept: "Kept", invitation: "Invitation", consent: "Consent") -> "Taking":
    from ingle.app.house import record
    from ingle.federated.at_home import Taking, learner
    from ingle.gate.check import load_policy

    learn = learner(home, kept, invitation, [file.path for file in consent.files])
    return Taking(home, kept, invitation, learn, load_policy(home), lambda event: record(home, event))


def _lead(taking: "Taking", address: str, stopped: Callable[[], bool], deadline_s: float, watch: "Watcher") -> "FederationStanding":
    """Lead all homes through the rounds, this one too."""
    from ingle.federated.coordinator import SessionWatch, coordinate
    from ingle.federated.flower.ends import flower_link
    from ingle.federated.standing import folder_of
    from ingle.federated.transport import beside, logged_requests

    invitation, folder = taking.invitation, folder_of(taking.home, taking.invitation)
    heard = SessionWatch(
        joined=lambda seats: watch.say(f"{counted(len(seats), 'home')} of {len(invitation.members)} are there"),
        began=lambda number, accepted: watch.pieces("rounds", accepted, invitation.rounds),
        ended=lambda end: watch.say(_told(end)),
        complain=lambda seat, error: watch.say(f"home {seat}: {error.sentence}"),
    )
    signer, (seat, respond) = _signer(taking.home), _answering(taking)
    with flower_link(folder / LINK, signer, invitation, address) as link:
        watch.say(f"homes find this one at {link.address}")
        _wait(lambda: len(link.here()) + 1, len(invitation.members), invitation.threshold, stopped, watch)
        if stopped():
            return taking.standing
        ask = beside(logged_requests(link.ask, folder), seat, respond, stopped)  # what goes to itself leaves nothing
        return coordinate(taking, ask, deadline_s, stopped, heard)


def _wait(here: Callable[[], int], all_: int, fewest: int, stopped: Callable[[], bool], watch: "Watcher") -> None:
    """Wait until all homes are there, or enough are and nobody came for a while."""
    import time

    known, since = 0, time.monotonic()
    while (count := here()) < all_ and not stopped():
        if count != known:
            known, since = count, time.monotonic()
            watch.say(f"{count} of {all_} homes are there; {fewest} are needed")
        if count >= fewest and time.monotonic() - since > _PATIENCE_S:
            return
        time.sleep(_LOOK_EVERY_S)


def _follow(taking: "Taking", address: str, stopped: Callable[[], bool], watch: "Watcher") -> "FederationStanding":
    """Answer the coordinator until all rounds are done."""
    import time

    from ingle.federated.flower.ends import flower_node
    from ingle.federated.standing import folder_of
    from ingle.federated.transport import logged_answers

    rounds, folder, (_, respond) = taking.invitation.rounds, folder_of(taking.home, taking.invitation), _answering(taking)
    logged = logged_answers(respond, folder)
    with flower_node(folder / NODE, _signer(taking.home), taking.invitation, address, logged) as hindrance:
        watch.say(f"asking at {address}; Ctrl-C to stop, the same command goes on")
        told, mark, standing = "", -1, taking.standing
        while standing.accepted < rounds and not stopped():
            if (changed := _changed_ns(folder)) != mark:  # reading it all is not for every half second
                mark, standing = changed, taking.standing
                watch.pieces("rounds", standing.accepted, rounds)
            if (trouble := hindrance(_LOOK_EVERY_S)) != told:
                told = trouble
                watch.say(trouble or "this home has its seat")
            time.sleep(_LOOK_EVERY_S)
        if standing.accepted == rounds:
            time.sleep(_LINGER_S)  # the last answer is on its way
    return standing


def _changed_ns(folder: Path) -> int:
    """Return when it was last written down where this home is; 0 before the first round."""
    from ingle.federated.standing import FACTORS

    path = folder / FACTORS
    return path.stat().st_mtime_ns if path.exists() else 0


def _answering(taking: "Taking") -> "tuple[int, Callable[[bytes], bytes]]":
    """Return this home's seat, and what answers a request to it."""
    from ingle.federated.at_home import node_of
    from ingle.federated.home_node import responder

    node = node_of(taking, _signer(taking.home))
    return node.member.seat, responder(node)


def _signer(home: "Home") -> "Signer":
    from ingle.ledger.keys import load_ring

    return load_ring(home.keys).signers[-1]


def _told(end: "EndedRound") -> str:
    verdict = end.verdict
    if verdict is None:
        return f"round {end.number} failed: {end.round.failure}"
    ended = "taken over" if verdict.accepted else "dropped"
    return f"round {verdict.number}: {counted(len(verdict.survivors), 'home')}, {len(verdict.yes)} said yes, {len(verdict.no)} no: {ended}"


def _keep(taking: "Taking", standing: "FederationStanding", watch: "Watcher") -> str:
    """Let the gate decide on what was learned together, and keep it as a delta. Returns the model's name."""
    from ingle.core.report import Event
    from ingle.federated.at_home import MAKER, candidate_of
    from ingle.gate.decide import admission

    candidate = candidate_of(taking, standing, standing.factors, taking.invitation.name)
    sink: Callable[[Event], object] = taking.sink
    admission(taking.home, taking.kept, MAKER, taking.policy, False, sink, watch.say, watch.pieces)(candidate, lambda: False)
    return f"{taking.kept.name}+{candidate.name}"
