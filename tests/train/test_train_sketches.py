"""Sketches of gradients: read together as each alone, and their products are the gradients' own."""

import numpy as np
import pytest
import torch
from torch import nn

from ingle.train.by_document import SIZE, Sketcher, summed_loss
from ingle.train.packing import make_batch
from tests.engine.tiny import tiny_config
from tests.train.test_train_through import low_rank
from tests.train.tiny_train import HYBRID, some_data, tiny_module, trained_parts


def test_read_together_they_are_those_of_each_alone() -> None:
    module, parameters = low_rank()
    for parameter in parameters.values():
        nn.init.normal_(parameter)
    data = some_data()
    sketcher, batch = Sketcher(module, parameters), make_batch(data.corpus, range(9))
    alone = sketcher.naive(batch)
    assert torch.allclose(sketcher._together(batch), alone, atol=1e-5 * float(alone.abs().max()))
    rows = sketcher.of_corpus(data.corpus, [5, 3, 8])
    assert rows.astype(np.float32) == pytest.approx(nn.functional.normalize(alone, dim=1)[[5, 3, 8]].numpy(), abs=1e-3)
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in parameters.values())


def test_what_lies_below_is_read_as_ever_but_not_kept() -> None:
    module = tiny_module(tiny_config(layers=HYBRID))
    parameters = [*trained_parts(module, "mlp.up_proj", "q_proj").values()]
    batch = make_batch(some_data().corpus, range(5))
    whole, upper = (torch.autograd.grad(summed_loss(module, batch, first), parameters, allow_unused=True) for first in (0, 2))
    kept = [one for one in upper if one is not None]
    assert kept and len(kept) < len(parameters) and all(torch.equal(a, b) for a, b in zip(whole, upper, strict=True) if b is not None)


def test_their_products_are_the_gradients_cosines() -> None:
    """On a hybrid with whole matrices trained, where each example is read alone."""
    module = tiny_module(tiny_config(layers=HYBRID))
    parameters = trained_parts(module, "mlp.up_proj", "q_proj")
    data, whole = some_data(40), list[torch.Tensor]()
    sketcher = Sketcher(module, parameters)
    parameters = {name: one for name, one in parameters.items() if name.startswith("model.layers.2.")}  # the upper third of three
    sketches = sketcher.of_corpus(data.corpus, range(40)).astype(np.float64)
    for number in range(40):
        loss = summed_loss(module, make_batch(data.corpus, [number]))
        whole.append(torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(parameters.values()))]))
    wanted = nn.functional.normalize(torch.stack(whole), dim=1).double()
    assert len(whole[0]) > 2 * SIZE, "it is folded several times"
    assert sketches @ sketches.T == pytest.approx((wanted @ wanted.T).numpy(), abs=6 / SIZE**0.5)
    assert np.array_equal(sketches, sketcher.of_corpus(data.corpus, range(40)).astype(np.float64))
