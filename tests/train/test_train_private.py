"""Cut gradients: read together as one at a time, no record moves their sum farther than promised, and nobody can foresee who is drawn."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from ingle.train import corpus
from ingle.train.by_document import add_clipped, clipped_sum, drawn, naive_sum, records
from ingle.train.packing import Data
from tests.train.test_train_through import low_rank
from tests.train.tiny_train import some_data, tiny_module, trained_parts


def lengths(data: Data, longest: float, examples: list[int]) -> dict[int, float]:
    module, parameters = shaken()
    return {one: length(naive_sum(module, parameters, data.corpus, [one], longest)) for one in examples}


def length(sums: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([one.square().sum() for one in sums.values()]).sum().sqrt())


def shaken(part: str = "") -> tuple[nn.Module, dict[str, nn.Parameter]]:
    module, parameters = low_rank()
    torch.manual_seed(3)
    for parameter in parameters.values():
        nn.init.normal_(parameter)
    return module.eval(), {name: one for name, one in parameters.items() if part in name}


@pytest.mark.parametrize("part", ["", "lora_A", "lora_B"])
def test_read_together_they_are_those_of_each_alone(part: str) -> None:
    module, parameters = shaken(part)
    data = some_data()
    some = sorted(lengths(data, 1e9, list(range(24))).values())
    for longest in (some[12], some[0] / 10, 1e9):  # half of them are cut, all, none
        wanted = naive_sum(module, parameters, data.corpus, range(24), longest)
        for batch_tokens in (40, 400):
            got = clipped_sum(module, parameters, data.corpus, list(range(24)), longest, batch_tokens)
            assert got.keys() == wanted.keys() == parameters.keys()
            for name, one in wanted.items():
                assert one.dtype == torch.float64 and float(one.abs().max()) > 0
                assert torch.allclose(got[name], one, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


def test_whole_matrices_are_read_one_by_one() -> None:
    module, data = tiny_module(), some_data(8)
    parameters = trained_parts(module, "mlp.up_proj")
    wanted = naive_sum(module, parameters, data.corpus, range(8), 0.1)
    got = clipped_sum(module, parameters, data.corpus, list(range(8)), 0.1, 200)
    assert all(torch.allclose(got[name], one, rtol=1e-4, atol=1e-7) for name, one in wanted.items())


@pytest.mark.parametrize("longest", [1e-3, 0.05, 3.0])
def test_one_record_never_moves_the_sum_farther_than_promised(longest: float) -> None:
    module, parameters = shaken()
    data, everybody = some_data(12), list(range(12))
    whole = clipped_sum(module, parameters, data.corpus, everybody, longest, 300)
    for gone in everybody:
        rest = clipped_sum(module, parameters, data.corpus, [one for one in everybody if one != gone], longest, 300)
        assert length({name: whole[name] - rest[name] for name in whole}) <= longest
    cut = [one for one in lengths(data, longest, everybody).values() if one > 0.99 * longest]
    assert longest > 1 or len(cut) == 12, "the two short lengths cut every record"


def test_what_is_no_number_adds_nothing() -> None:
    _, parameters = shaken("lora_B")
    data = some_data(4)
    from ingle.train.packing import make_batch

    batch = make_batch(data.corpus, [0, 1])
    name, shape = next((name, one.shape) for name, one in parameters.items())
    sums = {name: torch.zeros(shape, dtype=torch.float64)}
    broken = torch.full(shape, float("inf"))
    add_clipped(sums, [{name: torch.full(shape, float("nan"))}, {name: broken}], batch, 1.0)
    assert not sums[name].any()


def test_a_record_is_one_line_of_the_data() -> None:
    data = some_data(6)
    pieces = [(source, -1, (data.corpus.document(i),)) for i, source in enumerate("aabbbc")]
    assert records(corpus.corpus_of("answers", pieces), [1, 2, 3, 5]) == [1, 2, 5]


def test_who_is_drawn_follows_from_no_seed() -> None:
    everybody = list(range(2000))
    draws = []
    for _ in range(3):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        draws.append(drawn(everybody, 0.3))
    assert len({tuple(draw) for draw in draws}) == 3
    for draw in draws:  # 600 ± 20.5
        assert 480 < len(draw) < 720 and draw == sorted(draw)
    assert drawn(everybody, 1.0) == everybody and drawn(everybody, 0.0) == []
