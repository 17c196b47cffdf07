"""The recurrent memory: its forms agree, outputs and gradients; what is in the window isn't in the memory, and the other way round."""

import math
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.spec import LayerSpec
from ingle.model.module import CausalLM
from ingle.model.module_parts import Features, RecurrentMemory, chunked, log_held, unit
from ingle.train.forward import final_states, read_packed
from ingle.train.packing import make_batch
from tests.engine.tiny import tiny_config
from tests.examples import examples
from tests.train.tiny_train import corpus_of, documents, gradients, tiny_module

MIXED = (
    LayerSpec((0,), window=5, sinks=2, memory="gated_delta"),
    LayerSpec((0, 1)),
    LayerSpec((), window=3, sinks=0, memory="gated_delta"),
)
RECURRENT = (LayerSpec((), memory="gated_delta"),) * 3
KINDS = {
    "mixed": MIXED, "recurrent": RECURRENT, "one window without a memory": (MIXED[0], LayerSpec((1,), window=4, sinks=1), MIXED[2]),
    "one group without a memory": (LayerSpec((), 5, 2, "gated_delta", (0,)), MIXED[1], LayerSpec((), 3, 0, "gated_delta", (1,))),
}  # fmt: skip


def some_features(n: int, length: int, groups: int = 2, repeats: int = 3, width: int = 8, seed: int = 0) -> Features:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    decay = torch.nn.functional.logsigmoid(normal(n, length, groups) + 2)
    write = torch.sigmoid(normal(n, length, groups))
    queries, keys = unit(normal(n, length, groups, repeats, width)), unit(normal(n, length, groups, width))
    return Features(queries, keys, normal(n, length, groups, width), decay, write)


def leaves(told: Features) -> Features:
    return Features(*(getattr(told, field.name).clone().requires_grad_() for field in fields(told)))


def module_of(kind: str, seed: int = 0, **changes: object) -> CausalLM:
    """A module whose memories matter: random maps, and shares far from 0."""
    module = tiny_module(tiny_config(layers=KINDS[kind], **changes), seed)
    draw = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, RecurrentMemory):
            torch.nn.init.normal_(part.gate.bias, 0, 1, generator=draw)
    return module


def token_by_token(features: Features) -> torch.Tensor:
    """Naive reference: features [n, L, …] → y [n, L, G, R, D]; S [n, G, D, D], rows are values, columns keys."""
    n, length, groups, _, width = features.queries.shape
    s = features.queries.new_zeros(n, groups, width, width)
    out = []
    for t in range(length):
        key, value, write = features.keys[:, t], features.values[:, t], features.write[:, t, :, None]
        s = s * features.decay[:, t].exp()[..., None, None]
        wrong = value - torch.einsum("ngvk,ngk->ngv", s, key)
        s = s + torch.einsum("ngv,ngk->ngvk", wrong * write, key)
        out.append(torch.einsum("ngvk,ngrk->ngrv", s, features.queries[:, t]))
    return torch.stack(out, 1)


@examples(30)
@given(length=st.integers(1, 41), chunk=st.integers(1, 17))
def test_chunks_are_token_by_token(length: int, chunk: int) -> None:
    told = some_features(2, length, seed=length)
    results = []
    for form in (token_by_token, lambda told: chunked(told, chunk)):
        mine = leaves(told)
        y = form(mine)
        y.square().sum().backward()
        results.append((y, *(getattr(mine, field.name).grad for field in fields(mine))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_the_rule_by_hand() -> None:
    """Written under a key, read under it: the value, and once written anew at full strength, the new value alone."""
    key = torch.tensor([[1.0, 0, 0]]).expand(3, 3)[None, :, None]
    values = torch.tensor([[1.0, 2, 3], [9, 9, 9], [4, 5, 6]])[None, :, None]
    other = torch.tensor([0, 1.0, 0])
    keys = torch.where(torch.tensor([False, True, False])[None, :, None, None], other, key)
    queries = torch.stack((key, key, key), 1)[:, 0][..., None, :]
    y = token_by_token(Features(queries, keys, values, torch.zeros(1, 3, 1), torch.ones(1, 3, 1)))
    assert y[0, :, 0, 0].tolist() == [[1, 2, 3], [1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_is_each_document_alone(kind: str, recompute: bool) -> None:
    module = module_of(kind, qk_norm=kind == "mixed")
    batch = make_batch(corpus_of(documents([7, 2, 90, 19, 11])), [2, 0, 4, 3, 1])
    results = []
    for packed in (True, False):
        module.zero_grad()
        if packed:
            y = final_states(module, batch, recompute=recompute)
        else:
            alone = [module.hidden(batch.ids[None, a:b])[0] for a, b in zip(batch.bounds, batch.bounds[1:], strict=False)]
            y = torch.cat(alone)[batch.rows]
        (module.logits(y) * torch.linspace(-1, 1, y.shape[0])[:, None]).sum().backward()
        results.append((y.detach(), gradients(module)))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    assert results[0][1].keys() == dict(module.named_parameters()).keys()
    for name, slope in results[0][1].items():
        torch.testing.assert_close(slope, results[1][1][name], rtol=2e-3, atol=2e-4 * float(slope.abs().max()) + 1e-6, msg=name)


@pytest.mark.parametrize("read", [read_packed, RecurrentMemory.packed])
def test_bfloat16_computes_the_memory_in_float32(read: Callable[..., torch.Tensor]) -> None:
    """Of the same numbers it makes the same, but for the last rounding, whatever the processor makes of the layers around it."""
    memory, bounds = next(part for part in module_of("mixed").modules() if isinstance(part, RecurrentMemory)).bfloat16(), (0, 400, 490)
    draw, dim = torch.Generator().manual_seed(0), memory.q_map.in_features
    heads = [(memory.groups, memory.repeats)] * 2 + [(memory.groups,)] * 2
    given = [torch.randn(bounds[-1], *some, dim, generator=draw).bfloat16() for some in heads]
    with torch.no_grad():
        narrow = read(memory, *given, MIXED[0], bounds)
        wide = read(memory.float(), *(one.float() for one in given), MIXED[0], bounds)
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), wide, rtol=2**-7, atol=1e-5)


def test_bfloat16_changes_a_model_with_memories_little() -> None:
    module = module_of("mixed")
    batch = make_batch(corpus_of(documents([40, 9])), [0, 1])
    with torch.no_grad():
        wide = final_states(module, batch)
        narrow = final_states(module.to(torch.bfloat16), batch)
    assert narrow.dtype == torch.bfloat16
    assert float((narrow.float() - wide).norm()) < 0.1 * float(wide.norm()), "0.02 of all, whichever element is off by more"


def test_without_a_share_it_is_the_window_to_the_last_bit() -> None:
    module = module_of("mixed")
    plain = tiny_module(tiny_config(layers=tuple(replace(spec, memory="none") for spec in MIXED)))
    plain.load_state_dict({name: value for name, value in module.state_dict().items() if "memory" not in name})
    for part in module.modules():
        if isinstance(part, RecurrentMemory):
            torch.nn.init.zeros_(part.gate.weight)
            torch.nn.init.constant_(part.gate.bias, -1e4)
    ids = torch.randint(0, 70, (1, 25), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(module(ids), plain(ids))


def test_a_new_memory_is_hardly_read() -> None:
    memory = RecurrentMemory(tiny_config(), 2)
    memory.begin()
    q = torch.randn(5, 2, 2, 12)
    torch.testing.assert_close(memory.share(q, torch.zeros(5)), torch.full((5, 2, 2, 1), 0.0474), rtol=1e-2, atol=0)


def test_a_memory_of_few_tokens_is_read_as_little_as_it_holds() -> None:
    """By age = 1 its odds are in proportion to its share of the tokens; by 0, as before there were ages, all the same; never before any."""
    memory, count = RecurrentMemory(tiny_config(), 1), torch.tensor([0, 1, 10, 90])
    memory.begin()
    held = log_held(count, 90)
    torch.testing.assert_close(held.exp(), torch.tensor([0, 1 / 91, 0.1, 0.5]))
    shares = memory.share(torch.randn(4, 1, 2, 12), held)[:, 0, 0, 0]
    torch.testing.assert_close(shares / (1 - shares), torch.tensor([0, 1 / 91, 0.1, 0.5]) * math.exp(-3))
    torch.nn.init.zeros_(memory.age)
    assert memory.share(torch.randn(4, 1, 2, 12), held)[:, 0, 0, 0].tolist() == pytest.approx([0, 0.0474, 0.0474, 0.0474], rel=1e-2)
    assert log_held(count, 0).tolist() == [-math.inf, 0, 0, 0], "where nothing else is read, all is in it"


@pytest.mark.parametrize("length", [1, 63, 64, 150])
def test_chunks_are_hugging_faces(length: int) -> None:
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule as theirs

    told = some_features(2, length, repeats=1)
    told = Features(*(getattr(told, field.name).float() for field in fields(told)))
    y = chunked(told)
    queries = told.queries[:, :, :, 0] * 8**0.5  # it divides by the root of the width itself
    expected, _ = theirs(queries, told.keys, told.values, told.decay, told.write)
    torch.testing.assert_close(y[:, :, :, 0], expected, rtol=1e-4, atol=1e-5)
