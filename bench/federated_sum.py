"""Costs of a secure sum: seconds of a home and of the coordinator, and bytes on the wire, beside float32 averaging and Flower's SecAgg+.

One round of ten homes in this process, one after the other: the B factors of SmolLM2-135M at rank 16 (2.49 million numbers), random gains.
The sum is compared with the plain one, bit by bit; with --dropped, so many homes leave before their update, which is the dearest moment:
their masks have to be worked out again. SecAgg+ of Flower 1.42 sends 8 bytes a number, FedAvg A and B in float32. Where A and B take
turns, a round sends half of FedAvg's numbers.

python bench/federated_sum.py [--homes 10] [--dropped 3] [--numbers 2490000] [--bits 11]
"""

import argparse
import time

import numpy as np

from harness import finish, show
from ingle.federated.secure_sum import agree, begin, greet, hide, meet, open_sum, plain_sum, reveal, take_seat
from ingle.federated.terms import Grid, Terms, fewest_of, from_grid, to_grid
from ingle.ledger.keys import new_signer

FEDAVG_BYTES = 4 * (2_400_000 + 2_490_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--homes", type=int, default=10)
    parser.add_argument("--dropped", type=int, default=3)
    parser.add_argument("--numbers", type=int, default=2_490_000)
    parser.add_argument("--bits", type=int, default=11)
    args = parser.parse_args()
    signers = [new_signer() for _ in range(args.homes)]
    terms = Terms("f" * 64, tuple(one.verifier.public for one in signers), fewest_of(args.homes), Grid(0.01, args.bits, args.homes))
    seated = [take_seat(terms, signer) for signer in signers]
    joins = [greet(member) for member in seated]
    members = [meet(member, joins) for member in seated]
    rng = np.random.default_rng(0)
    gains = [rng.normal(0, 0.002, args.numbers) for _ in members]
    updates = [to_grid(gain, terms.grid)[0] for gain in gains]
    home_s: list[float] = []

    parts, keys, sealed = [], {}, {}
    for member in members:
        begun = time.perf_counter()
        part, said = begin(member, 1, "b" * 64)
        home_s.append(time.perf_counter() - begun)
        parts.append(part)
        keys[member.seat], sealed[member.seat] = said["statement"], said["sealed"]
    staying = range(args.homes - args.dropped)
    said_updates, bodies = [], {}
    for seat in staying:
        begun = time.perf_counter()
        shares = {by: of[seat] for by, of in sealed.items() if seat in of}
        parts[seat], said, bodies[seat] = hide(parts[seat], list(keys.values()), shares, updates[seat])
        home_s[seat] += time.perf_counter() - begun
        said_updates.append(said)
    agreed, told = [], {}
    for seat in staying:
        begun = time.perf_counter()
        parts[seat], said = agree(parts[seat], said_updates)
        home_s[seat] += time.perf_counter() - begun
        agreed.append(said)
    for seat in staying:
        begun = time.perf_counter()
        parts[seat], told[seat] = reveal(parts[seat], agreed)
        home_s[seat] += time.perf_counter() - begun
    begun = time.perf_counter()
    total = open_sum(terms, 1, args.numbers, keys, bodies, told)
    coordinator_s = time.perf_counter() - begun
    exact = bool((total == plain_sum(updates[seat] for seat in staying)).all())
    mean = np.mean([gains[seat] for seat in staying], axis=0)
    error = float(np.sqrt(np.square(from_grid(total, len(staying), terms.grid) - mean).mean()) / mean.std())
    up = len(bodies[0])
    rows = [
        ("homes", "dropped", "a home, s", "coordinator, s", "MB up", "bytes a number", "of FedAvg", "of SecAgg+"),
        (args.homes, args.dropped, round(float(np.mean(home_s[: len(staying)])), 2), round(coordinator_s, 2), round(up / 1e6, 2),
         round(up / args.numbers, 2), round(up / (FEDAVG_BYTES * args.numbers / 2_490_000), 3), round(up / (8 * args.numbers), 3)),
    ]  # fmt: skip
    show("secure sum", rows)
    finish("federated_sum", {"exact": exact, "relative_error": error, "up_bytes": up, "coordinator_s": coordinator_s, "home_s": home_s})


if __name__ == "__main__":
    main()
