"""Threads give way to other programs where that is faster, and come back; measured against the best fixed number on a simulated machine."""

import random
from dataclasses import dataclass

import pytest

from ingle.engine.threads import Cores, GivingWay

# Milliseconds of a step by busy programs and threads, as they were measured on two cores, and as sixteen might do.
TWO = {0: {1: 11.6, 2: 6.8}, 1: {1: 13.0, 2: 34.0}, 2: {1: 20.0, 2: 45.0}}
SIXTEEN = {busy: {n: 100 / n * (4.0 if n + busy > 16 else 1.0) for n in range(1, 17)} for busy in range(4)}


@dataclass
class Machine:
    """Takes steps, tells the time, and says how often it took a core away."""

    took_ms: dict[int, dict[int, float]]
    busy: int = 0
    seconds: float = 0.0
    away: int = 0
    noisy: bool = False
    """Whether a core is taken away now and then on a quiet machine too: a server's own event loop does."""

    def run(self, chooser: GivingWay, steps: int, rows: int = 1, seed: int = 0) -> float:
        """The seconds that so many steps take."""
        draw, began, most = random.Random(seed), self.seconds, max(self.took_ms[0])
        for _ in range(steps):
            threads = chooser.threads(most)
            took = self.took_ms[self.busy][threads] / 1000 * rows * draw.uniform(0.9, 1.3 if self.busy else 1.1)
            self.seconds += took
            self.away += bool(self.busy and threads + self.busy > most) or self.noisy
            chooser.saw(threads, most, rows, took)
        return self.seconds - began

    def best(self, steps: int, rows: int = 1, seed: int = 0) -> float:
        """The same with the better fixed number."""
        return min(
            Machine({b: {n: times[n] for n in times} for b, times in self.took_ms.items()}, self.busy).fixed(n, steps, rows, seed)
            for n in self.took_ms[0]
        )

    def fixed(self, threads: int, steps: int, rows: int, seed: int) -> float:
        """The same with one number."""
        draw = random.Random(seed)
        return sum(self.took_ms[self.busy][threads] / 1000 * rows * draw.uniform(0.9, 1.3 if self.busy else 1.1) for _ in range(steps))


def chooser_of(machine: Machine) -> GivingWay:
    return GivingWay(taken_away=lambda: machine.away)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("took_ms", [TWO, SIXTEEN], ids=["two", "sixteen"])
@pytest.mark.parametrize("busy", [0, 1, 2])
def test_it_is_nearly_the_better_fixed_number(took_ms: dict[int, dict[int, float]], busy: int, noisy: bool) -> None:
    machine = Machine(took_ms, busy, noisy=noisy)
    chooser = chooser_of(machine)
    machine.run(chooser, 400)
    assert machine.best(4000, seed=1) / machine.run(chooser, 4000, seed=1) > (0.98 if not busy and not noisy else 0.93)


def test_a_program_that_comes_is_noticed_soon_and_one_that_goes_too() -> None:
    machine = Machine(TWO, noisy=True)
    chooser = chooser_of(machine)
    machine.run(chooser, 5000)
    assert chooser.threads(2) == 2
    machine.busy, began = 1, machine.seconds
    while chooser._trial is not None or chooser.threads(2) == 2:
        machine.run(chooser, 1)
    assert machine.seconds - began < 2
    machine.run(chooser, 2000)
    machine.busy, machine.noisy, began = 0, False, machine.seconds
    while chooser._trial is not None or chooser.threads(2) == 1:
        machine.run(chooser, 1)
    assert machine.seconds - began < 10


def test_steps_of_another_size_are_not_compared() -> None:
    machine = Machine(TWO, 1)
    chooser = chooser_of(machine)
    for _ in range(300):
        machine.run(chooser, 5)
        machine.run(chooser, 1, rows=200)
    assert chooser._threads == 1
    for _ in range(200):
        machine.run(chooser, 1, rows=300)  # a trial that was begun with small steps is given up
    assert chooser._trial is None or chooser._trial.size == (300).bit_length()


def test_one_thread_has_nothing_to_give_and_a_fixed_number_stays() -> None:
    for cores in (Cores(1), Cores(2, gives_way=False)):
        for _ in range(100):
            cores.saw(cores.threads(1), 1, 1.0)
        assert cores.threads(1) == cores.most
    lent = Cores(4)
    lent.lent = 10**6
    assert lent.threads(1) == 1
