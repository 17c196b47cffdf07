"""Is our ε right? Beside Google's dp-accounting, for the plans of the design and some that are harder.

dp-accounting stands in no extra (it asks for attrs < 24): give it a virtual environment of its own beside Ingle,
`pip install dp-accounting==0.6.0`. The bar: never below theirs, and at most 0.03 above.

python bench/federated_privacy.py
"""

import time

from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent, pld

from harness import finish, show
from ingle.federated.privacy import PrivacyPlan, epsilon

# Noise, share, steps, delta: the design's table, and harder ones.
PLANS = [
    (2.12, 1.0, 10, 1e-2), (1.29, 1.0, 10, 1e-2), (1.03, 0.1, 50, 1e-4), (3.94, 0.128, 60, 1e-5), (1.40, 0.128, 60, 1e-5),
    (0.94, 0.128, 60, 1e-5), (1.02, 0.0512, 100, 1e-6), (0.5, 0.01, 1, 1e-5), (1.0, 0.01, 5000, 1e-6), (0.6, 0.5, 200, 1e-5),
]  # fmt: skip


def main() -> None:
    rows, gaps = [("noise", "share", "steps", "delta", "ours", "theirs", "seconds")], []
    for noise, share, steps, delta in PLANS:
        plan = PrivacyPlan("record", noise, share, steps, delta)
        begun = time.perf_counter()
        ours = epsilon(plan)
        taken_s = time.perf_counter() - begun
        accountant = pld.PLDAccountant()
        accountant.compose(SelfComposedDpEvent(PoissonSampledDpEvent(plan.share, GaussianDpEvent(plan.noise)), plan.steps))
        theirs = accountant.get_epsilon(plan.delta)
        gaps.append(ours - theirs)
        rows.append((noise, share, steps, delta, round(ours, 4), round(theirs, 4), round(taken_s, 2)))
    show("epsilon", rows)
    least, most = min(gaps), max(gaps)
    finish("federated_privacy", {"least_above": least, "most_above": most, "passed": least >= 0 and most <= 0.03})


if __name__ == "__main__":
    main()
