"""Documents that share their start are, states and gradients, what they are one by one; so are answers that are written together."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.spec import LayerSpec, ModelConfig
from ingle.kernels import packed_attention
from ingle.model.module import CausalLM
from ingle.train.example_files import Document
from ingle.train.forward import final_states
from ingle.train.packing import make_batch
from ingle.train.shared import final_states_of, lower_states_of, make_row, sharing
from ingle.train.shared_rows import common_start
from ingle.train.writing import Choice, Drawn, likeliest, write_all
from tests.engine.test_sublayers import conv_config, delta_config
from tests.engine.tiny import tiny_config, tokens
from tests.examples import examples
from tests.train.tiny_train import HYBRID, corpus_of, tiny_module, trained_parts

REMEMBERING = (LayerSpec((0,), window=4, sinks=1, memory="gated_delta"), LayerSpec((0, 1)))


def alike(start: int, lengths: list[int], seed: int = 0) -> list[Document]:
    """Documents of these lengths behind a common start, the last half of each with a loss."""
    draw = np.random.default_rng(seed)
    first = draw.integers(0, 70, start)
    made = []
    for number, length in enumerate(lengths):
        own = draw.integers(0, 70, length)
        own[0] = number  # no two go on alike
        ids = np.concatenate([first, own]).astype(np.int32)
        made.append(Document(ids, np.arange(len(ids)) >= start + max(1, length // 2)))
    return made


@examples(15)
@given(start=st.integers(0, 9), lengths=st.lists(st.integers(2, 12), min_size=2, max_size=5), specs=st.sampled_from([(), HYBRID]))
@pytest.mark.parametrize("block", [3, 64])
def test_a_shared_start_is_each_documents_own(start: int, lengths: list[int], specs: tuple[LayerSpec, ...], block: int) -> None:
    module = tiny_module(tiny_config(layers=specs)).double()
    documents = alike(start, lengths)
    assert common_start(documents) == start
    upper = trained_parts(module, "layers.1.")
    results = []
    before, packed_attention.BLOCK = packed_attention.BLOCK, block
    try:
        for together in (True, False):
            if together:
                row = make_row(documents, sharing(module, documents))
                states = final_states_of(module, row, 1, lower_states_of(module, row, 1))
            else:
                states = final_states(module, make_batch(corpus_of(documents), range(len(documents))))
            slope = torch.linspace(-1, 2, states.numel(), dtype=states.dtype).view_as(states)
            results.append((states.detach(), *torch.autograd.grad(states, list(upper.values()), slope, allow_unused=True)))
    finally:
        packed_attention.BLOCK = before
    for mine, theirs in zip(*results, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)  # norms are float32


def test_what_carries_the_loss_keeps_its_place() -> None:
    documents = alike(5, [4, 6])
    row = make_row(documents, 5)
    batch = make_batch(corpus_of(documents), range(2))
    assert row.targets.tolist() == batch.targets.tolist()
    assert row.learnt.tolist() == batch.owners.tolist()
    assert len(row.ids) == 64
    assert row.positions[row.rows].tolist() == batch.positions[batch.rows].tolist()


def test_a_start_never_swallows_what_predicts_an_answer() -> None:
    one = Document(np.arange(8, dtype=np.int32), np.arange(8) >= 5)
    assert common_start([one]) == 4
    assert common_start([one, one]) == 4
    assert common_start([Document(one.ids, np.zeros(8, np.bool_))]) == 7


KINDS = {
    "transformer": tiny_config(), "hybrid": tiny_config(layers=HYBRID), "remembering": tiny_config(layers=REMEMBERING),
    "convolution": conv_config(), "delta": delta_config(),
}  # fmt: skip


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
def test_answers_written_together_are_those_written_alone(config: ModelConfig) -> None:
    module: CausalLM = tiny_module(config, 3).double()
    start = tokens(module.config, 6)
    prompts = [[*start, *tokens(module.config, length, length)] for length in (1, 5, 12)]

    def write_each(choose: Choice = likeliest) -> list[list[int]]:
        """One after the other, each read anew for every token."""
        answers = list[list[int]]()
        for number, prompt in enumerate(prompts):
            answers.append([])
            for step in range(9):
                logits = module(torch.tensor([[*prompt, *answers[-1]]]))[0, -1:]
                answers[-1].append(int(choose(logits, [number], step)))
        return answers

    alone = write_each()
    assert write_all(module, prompts, 9, frozenset()) == alone
    end = alone[1][3]
    ended = write_all(module, prompts, 9, frozenset([end]))
    assert ended == [answer[: answer.index(end) + 1] if end in answer else answer for answer in alone]
    drawn = write_all(module, prompts, 9, frozenset(), Drawn(3, 9, 1.0, [5]))
    assert drawn == write_each(Drawn(3, 9, 1.0, [5]))
    assert drawn != alone
    assert write_all(module, prompts, 9, frozenset(), stop=lambda ids: len(ids) == 4) == [answer[:4] for answer in alone]


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    chances = torch.tensor([0.5, 0.2, 0.3, 0.0])
    draw = Drawn(2000, 1, 2.0, [0])
    tokens = draw((2.0 * chances.log()).expand(2000, -1), range(2000), 0)
    assert torch.bincount(tokens, minlength=4) / 2000 == pytest.approx(chances.numpy(), abs=0.04)
    assert tokens[:7].tolist() == draw((2.0 * chances.log()).expand(7, -1), range(7), 0).tolist()
