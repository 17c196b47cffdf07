"""How a home really learns in a round: from its own files, in another process (tuning/homework.py), and never from what it votes by."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingle.core.digest import digest_json
from ingle.core.files import os_errors
from ingle.federated.aggregate import Tensors
from ingle.federated.invitation import Invitation
from ingle.federated.promise import step_length
from ingle.federated.standing import folder_of
from ingle.home.kept import Kept
from ingle.home.place import Home
from ingle.tuning.homework import Arrays, HeldOutExample, Homework, HomeworkDone, do_apart, read_done, write_done

# In the federation's folder: a round's learning, which is gone afterwards; and held-out examples, until a round is accepted.
WORK, OWN = "homework", "own.safetensors"
# Factors, which of them may change, round → the factors after learning from this home's own examples.
Learn = Callable[[Tensors, Sequence[str], int], Mapping[str, npt.NDArray[np.floating]]]
Do = Callable[[Homework, Arrays, Path], HomeworkDone]


def learner(home: Home, kept: Kept, invitation: Invitation, sources: Sequence[str], do: Do = do_apart) -> Learn:
    """Return how this home learns from these files, folders (absolute paths) and `suite:NAME`, as the invitation says.

    What it returns raises what `do_apart` does, and HomeError. With privacy of a record it moves the factors along the sum of the cut
    gradients, in float64; the noise comes after (promise.py).
    """
    private = invitation.privacy.unit == "record"

    def learn(factors: Tensors, names: Sequence[str], number: int) -> Mapping[str, npt.NDArray[np.floating]]:
        seed = int(digest_json([invitation.digest, number])[:15], 16)
        clip, share = (invitation.privacy.clip, invitation.privacy.share) if private else (0.0, 1.0)
        homework = Homework(str(home.root), kept, tuple(sources), invitation.learning, tuple(names), seed, clip, share)
        done = do(homework, factors, folder_of(home, invitation) / WORK)
        write_done(folder_of(home, invitation) / OWN, HomeworkDone({}, done.held_out))
        if not private:
            return {**factors, **done.tensors}
        length = step_length(invitation)
        return {**factors, **{name: factors[name].astype(np.float64) - length * done.tensors[name] for name in names}}

    return learn


def read_own(home: Home, invitation: Invitation) -> tuple[HeldOutExample, ...]:
    """Return this home's own held-out examples, as its last learning left them; none if it left none. Raises HomeError."""
    path = folder_of(home, invitation) / OWN
    return read_done(path).held_out if path.exists() else ()


def drop_own(home: Home, invitation: Invitation) -> None:
    """Delete them: they are of use for votes on one update. Raises HomeError."""
    path = folder_of(home, invitation) / OWN
    with os_errors(path):
        path.unlink(missing_ok=True)
