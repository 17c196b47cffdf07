"""Canaries: made-up records that a home learns from are told from others by their loss, unless privacy of a record was promised."""

import json

import numpy as np
import numpy.typing as npt
import pytest

from ingle.core.candidate import Candidate
from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.federated.aggregate import flat_gain
from ingle.federated.at_home import Taking, learner, read_own
from ingle.federated.invitation import Invitation, Privacy, invite, promised, with_noise
from ingle.federated.secure_sum import plain_sum
from ingle.federated.terms import to_grid
from ingle.gate.check import Policy
from ingle.gate.checks.own import nats
from ingle.gate.trial import Trial
from ingle.home.kept import Kept, get_kept
from ingle.home.place import Home
from ingle.home.pull import pull
from ingle.ledger.keys import new_signer
from ingle.train.example_files import Encoder, Record
from ingle.tuning.homework import HeldOutExample, Learning
from ingle.tuning.homework_training import do_homework
from tests.cli.place import write_model

pytestmark = pytest.mark.journey

EACH, HOMES = 60, 3
USUAL = Learning(rate=1e-2, steps=60, batch_tokens=256)
PRIVATE = Privacy("record", epsilon=2.0, delta=1e-3, clip=1.0, share=1.0, records=162, numbers=1_920)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Kept, list[str], list[HeldOutExample], list[HeldOutExample]]:
    folder = tmp_path_factory.mktemp("canaries")
    home = Home(folder / "home")
    pull(home, str(write_model(folder / "tiny")), lambda _: None, "tiny")
    kept = get_kept(home, "tiny")
    rng = np.random.default_rng(0)
    rows = [{"prompt": f"{number} {rng.integers(10**6)}", "completion": f"{rng.integers(10**4)}"} for number in range(2 * EACH * HOMES)]
    tokenizer = checkpoint_tokenizer(open_weights(home, kept), home.base_folder(kept.base))
    encoded = []
    for row in rows:
        document = Encoder(tokenizer, 128).answered(Record("here", "completion", row["prompt"]), row["completion"])
        encoded.append(HeldOutExample(tuple(document.ids.tolist()), tuple(document.answer.tolist())))
    files = []
    for seat in range(HOMES):
        (path := folder / f"{seat}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[seat * EACH : (seat + 1) * EACH]))
        files.append(str(path))
    return home, kept, files, encoded[: EACH * HOMES], encoded[EACH * HOMES :]


def auc(
    street: tuple[Home, Kept, list[str], list[HeldOutExample], list[HeldOutExample]], learning: Learning, rounds: int, privacy: Privacy
) -> tuple[float, int, float]:
    """After some rounds: the chance that a canary which was learned from is likelier than one which was not; how many were learned from;
    and by how many nats a token those that were not got likelier, since all canaries are of one form."""
    home, kept, files, inside, outside = street
    signers = [new_signer() for _ in range(HOMES)]
    members = tuple(signer.verifier.public for signer in signers)
    asked = Invitation(
        f"canaries {privacy.unit}", kept.digest, "", members, HOMES, rounds, "2100-01-01T00:00:00Z", rank=2, reach=2.0,
        learning=learning, privacy=privacy,
    )  # fmt: skip
    invitation = invite(promised(asked), signers[0])
    terms = invitation.terms()
    standing = Taking(home, kept, invitation, lambda *_: {}, Policy(), lambda _: None).standing
    out = set[tuple[int, ...]]()
    for number in range(1, rounds + 1):
        updates = []
        for file in files:
            after = learner(home, kept, invitation, [file], do_homework)(standing.factors, standing.names, number)
            out |= {one.ids for one in read_own(home, invitation)}
            gain = flat_gain(standing.factors, after, standing.names)
            updates.append(to_grid(with_noise(gain, invitation, terms) if privacy.unit else gain, terms.grid)[0])
        standing = standing.__class__(invitation, "", standing.with_sum(plain_sum(updates), HOMES), standing.accepted + 1, number)
    trial = Trial(home, kept, Candidate("canaries", "lora", kept.digest, standing.factors, {"command": "test"}))
    learned = [one for one in inside if one.ids not in out]
    first, second = (means(nats(trial.challenger, examples)) for examples in (learned, outside))
    likelier = (first[:, None] < second).mean() + 0.5 * (first[:, None] == second).mean()
    return float(likelier), len(learned), float((means(nats(trial.incumbent, outside)) - second).mean())


def means(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Nats a token of each."""
    return np.asarray(rows[:, 0] / rows[:, 1])


def test_canaries_sing_without_privacy_and_are_silent_with_it(
    street: tuple[Home, Kept, list[str], list[HeldOutExample], list[HeldOutExample]],
) -> None:
    told, learned, likelier = auc(street, USUAL, 6, Privacy())
    assert learned == 144 and told > 0.7 and likelier > 0.3, "learning that promises nothing is found out: the test has power"
    told, learned, likelier = auc(street, Learning(rate=2.0, batch_tokens=256), 10, PRIVATE)
    # By chance 0.50 ± 0.03; ε = 2 allows for more.
    assert 150 <= learned <= 172 and 0.38 < told < 0.62
    assert likelier > 0.3, "something is learned all the same: the form that all of them have"
