"""A packed row is its documents one by one: states, gradients, and what is left out changes nothing."""

import pytest
import torch

from ingle.core.spec import LayerSpec
from ingle.model.module import CausalLM
from ingle.train.forward import final_states, first_trained_layer, lower_states
from ingle.train.packing import Batch, make_batch
from tests.engine.tiny import tiny_config
from tests.train.tiny_train import HYBRID, corpus_of, documents, gradients, tiny_module, trained_parts

KINDS = {"transformer": (), "hybrid": HYBRID, "q and k normed": ()}


def make(kind: str) -> tuple[CausalLM, Batch]:
    config = tiny_config(layers=KINDS[kind], qk_norm=kind == "q and k normed", biases=kind == "hybrid", tied=kind != "hybrid")
    return tiny_module(config), make_batch(corpus_of(documents([7, 2, 19, 11])), [2, 0, 3, 1])


def naive(module: CausalLM, batch: Batch) -> torch.Tensor:
    """Every document by itself through the plain forward that the engine's oracle uses, then the wanted rows."""
    whole = [module.hidden(batch.ids[None, a:b])[0] for a, b in zip(batch.bounds, batch.bounds[1:], strict=False)]
    return torch.cat(whole)[batch.rows]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_is_each_document_alone(kind: str, recompute: bool) -> None:
    module, batch = make(kind)
    results = []
    for states in (lambda: final_states(module, batch, recompute=recompute), lambda: naive(module, batch)):
        module.zero_grad()
        y = states()
        (module.logits(y) * torch.linspace(-1, 1, y.shape[0])[:, None]).sum().backward()
        results.append((y.detach(), gradients(module)))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    assert results[0][1].keys() == results[1][1].keys() == dict(module.named_parameters()).keys()
    for name, slope in results[0][1].items():
        torch.testing.assert_close(slope, results[1][1][name], rtol=1e-3, atol=1e-4 * float(slope.abs().max()), msg=name)


def test_a_document_does_not_see_its_neighbours() -> None:
    module, batch = make("transformer")
    with torch.no_grad():
        before = final_states(module, batch)
        batch.ids[: batch.bounds[1]] = (batch.ids[: batch.bounds[1]] + 1) % 70
        after = final_states(module, batch)
    first = batch.owners == 0
    assert (before[first] != after[first]).any()
    assert torch.equal(before[~first], after[~first])


def test_a_run_that_begins_higher_up_is_the_same() -> None:
    module, batch = make("hybrid")
    with torch.no_grad():
        whole = final_states(module, batch)
        for first in range(4):
            x = lower_states(module, batch.ids, first, batch.edges)
            torch.testing.assert_close(final_states(module, batch, first, x), whole, rtol=1e-5, atol=1e-6)


def test_nothing_is_kept_below_the_first_trained_layer() -> None:
    module, batch = make("hybrid")
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("layers.2.mlp.down_proj.weight" in name)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        final_states(module, batch).sum().backward()
    assert len(saved) < 8, saved
    assert gradients(module).keys() == {"model.layers.2.mlp.down_proj.weight"}


def test_the_first_trained_layer() -> None:
    module = tiny_module(tiny_config(layers=(LayerSpec((0, 1)),) * 4, tied=False))
    tied = tiny_module(tiny_config())
    assert first_trained_layer(module, list(trained_parts(module, "layers.2.mlp", "layers.3", "model.norm"))) == 2
    assert first_trained_layer(module, ["lm_head.weight", "model.norm.weight"]) == 4
    assert first_trained_layer(module, ["model.layers.3.mlp.up_proj.weight", "model.embed_tokens.weight"]) == 0
    assert first_trained_layer(tied, ["lm_head.weight"]) == 0
    assert first_trained_layer(module, ["something.new"]) == 0
