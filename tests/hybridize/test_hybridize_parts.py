"""What a conversion is made of: the budget, the search by effect, the lessons, and what is taught."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from ingle.core.errors import ConfigError
from ingle.core.spec import LayerSpec
from ingle.hybridize.budget import all_groups, layers_of, retrieval_count, share_of
from ingle.hybridize.lessons import make_lessons
from ingle.hybridize.search import _sizes, find_groups, loss_of, search_corpora, slope
from ingle.hybridize.settings import HybridSettings, SearchSettings
from ingle.hybridize.teaching import Mixers, OriginalLogits, hybrid_module, memories_of, original_of
from ingle.hybridize.windows import find_windows, share_out
from ingle.measure.items import Text
from ingle.model.memory import Memory
from ingle.train.forward import final_states
from ingle.train.losses import cross_entropy
from ingle.train.packing import make_batch
from tests.engine.tiny import tiny_config
from tests.train.tiny_train import chat_tokenizer, corpus_of, documents, tiny_module

SMALL = HybridSettings(window=8, sinks=2, search=SearchSettings(documents=2, tokens=180, rounds=2))


def some_batch(length: int = 40) -> object:
    return make_batch(corpus_of(documents([length, 17])), [0, 1])


def test_as_many_groups_as_the_budget_allows() -> None:
    config = tiny_config(layers=(LayerSpec((0, 1)),) * 4, context=8192)
    count = retrieval_count(config, SMALL)
    groups = all_groups(config)
    assert 0 < count < len(groups)
    assert share_of(config, layers_of(config, groups[:count], SMALL), 8192) <= 1 / 6
    assert share_of(config, layers_of(config, groups[: count + 1], SMALL), 8192) > 1 / 6
    assert retrieval_count(config, HybridSettings(retrieval=3)) == 3


def test_budgets_and_models_that_cannot_be() -> None:
    config = tiny_config(context=300)
    with pytest.raises(ConfigError, match="can't be met at 300 tokens"):
        retrieval_count(config, HybridSettings(state_budget=0.01, window=200))
    with pytest.raises(ConfigError, match="full attention everywhere"):
        retrieval_count(config.with_layers((LayerSpec((0,), window=4), LayerSpec((0, 1)))), SMALL)
    with pytest.raises(ConfigError, match="at most 4"):
        retrieval_count(config, HybridSettings(retrieval=5))
    with pytest.raises(ConfigError, match="1/6"):
        HybridSettings(state_budget=0)


def test_layers_with_all_their_groups_stay_as_they_are() -> None:
    config = tiny_config()
    free = HybridSettings(window=8, sinks=2, method="training-free")
    assert layers_of(config, [(0, 1), (1, 0), (1, 1)], free) == (LayerSpec((1,), 8, 2), LayerSpec((0, 1)))
    assert layers_of(config, [(0, 1)], SMALL)[0].memory == "gated_delta"


def test_between_full_and_windowed_attention() -> None:
    module, batch = tiny_module(), some_batch()
    windowed = tiny_module(tiny_config(layers=(LayerSpec((0,), 8, 2), LayerSpec((), 8, 2))))
    windowed.load_state_dict(module.state_dict())
    with torch.no_grad():
        for shares, other in ((torch.ones(2, 2), module), (torch.tensor([[1.0, 0], [0, 0]]), windowed)):
            expected = cross_entropy(final_states(other, batch), other.lm_head.weight, batch.targets)
            torch.testing.assert_close(loss_of(module, batch, shares, 8, 2), expected, rtol=1e-5, atol=1e-5)


def test_the_effect_is_the_slope_of_the_loss() -> None:
    module, batch = tiny_module(), some_batch()
    shares = torch.full((2, 2), 0.6)
    found = slope(module, batch, shares, 8, 2) * len(batch.targets)
    for place in itertools.product(range(2), range(2)):
        sides = []
        for step in (0.02, -0.02):
            moved = shares.clone()
            moved[place] += step
            with torch.no_grad():
                sides.append(float(loss_of(module, batch, moved, 8, 2)))
        assert float(found[place]) == pytest.approx((sides[0] - sides[1]) / 0.04, rel=0.05, abs=2e-3)


def test_groups_without_effect_are_seen_and_the_largest_effects_are_kept(texts: list[Text]) -> None:
    module = tiny_module(tiny_config(vocab=2000, layers=(LayerSpec((0, 1)),) * 3))
    with torch.no_grad():  # what these groups see reaches nobody
        module.model.layers[0].self_attn.o_proj.weight[:, :24] = 0
        module.model.layers[1].self_attn.o_proj.weight[:, 24:] = 0
    told: list[tuple[int, int]] = []
    corpora = search_corpora(chat_tokenizer(), texts, SMALL)
    once = replace(SMALL, search=replace(SMALL.search, rounds=1))
    kept, effects = find_groups(module, corpora, 2, once, lambda done, of: told.append((done, of)))
    assert [place for place, effect in effects.items() if effect == 0] == [(0, 0), (1, 1)]
    assert kept == sorted(sorted(effects, key=lambda place: -effects[place])[:2])
    assert told[-1] == (len(told), len(told)) == (4, 4)
    assert find_groups(module, corpora, 2, once)[0] == kept


def test_what_counts_in_the_search(texts: list[Text]) -> None:
    facts, plain = search_corpora(chat_tokenizer(), texts, SMALL)
    fast = chat_tokenizer()
    for number in range(2):
        document = facts.document(number)
        said = fast.decode(document.ids.tolist())
        answer = fast.decode(document.ids[document.answer].tolist())
        assert len(document.ids) == 180
        assert said.count(answer) == 2
        assert said.endswith(answer)
    assert plain.document(0).answer.tolist() == [False] * 9 + [True] * 171


def test_rounds_give_up_the_same_share() -> None:
    assert _sizes(90, 10, 3) == [43, 21, 10]
    assert _sizes(4, 4, 3) == []
    assert _sizes(4, 0, 2)[-1] == 0


def test_windows_are_shared_out_as_well_as_can_be() -> None:
    draw = np.random.default_rng(0)
    for _ in range(30):
        groups = draw.integers(0, 4, 4).tolist()
        effects = {width: draw.normal(1 / width, 0.01, 4).tolist() for width in (16, 32, 64)}
        widths = share_out(effects, groups, 32)
        cost = lambda given, of=groups: sum(count * width for count, width in zip(of, given, strict=True))  # noqa: E731
        lost = lambda given, by=effects: sum(max(0, by[width][i]) for i, width in enumerate(given))  # noqa: E731
        every = [given for given in itertools.product(effects, repeat=4) if cost(given) <= 32 * sum(groups)]
        assert tuple(widths) in every
        assert lost(widths) == pytest.approx(min(map(lost, every)))


def test_what_does_no_harm_gets_the_shortest_window() -> None:
    effects = {8: [-0.5, 1.0], 16: [0.0, 1.0], 40: [0.0, 0.0]}
    assert share_out(effects, [1, 1], 32) == [8, 40]
    assert share_out({}, [1, 1, 1], 32) == [32, 32, 32]


def test_effects_of_windows_add_up_to_what_is_lost(texts: list[Text]) -> None:
    module = tiny_module(tiny_config(vocab=2000))
    one = search_corpora(chat_tokenizer(), texts, SMALL)[1].document(0)
    same = corpus_of([one] * 12)  # so that the way from full to windowed attention is walked in twelve steps
    told: list[tuple[int, int]] = []
    settings = replace(SMALL, search=replace(SMALL.search, windows=(4,)))
    widths, effects = find_windows(module, same, [(0, 1)], settings, lambda done, of: told.append((done, of)))
    assert told[-1] == (24, 24)
    assert set(effects) == {4, 8}
    assert set(widths) <= {4, 8}
    batch, kept = make_batch(same, [0]), torch.tensor([[0.0, 1], [0, 0]])
    with torch.no_grad():
        for width, rows in effects.items():
            rise = loss_of(module, batch, kept, width, 2) - loss_of(module, batch, torch.ones(2, 2), width, 2)
            assert sum(rows) == pytest.approx(float(rise) / len(batch.targets), rel=0.05, abs=1e-5)
    assert find_windows(module, same, [(0, 1)], SMALL) == ([8, 8], {})


def test_lessons_of_three_kinds(texts: list[Text]) -> None:
    tokenizer = chat_tokenizer()
    corpus = make_lessons(tokenizer, texts, 8, 700, 2, 0)
    assert corpus.sizes.max() <= 700
    plain, again, facts, copy = (corpus.document(i) for i in range(4))
    assert plain.answer.tolist() == again.answer.tolist() == [False] + [True] * 699
    starts = np.flatnonzero(np.diff(facts.answer.astype(int)) == 1)
    assert len(starts) == 5  # one for every 128 tokens
    said = tokenizer.decode(facts.ids.tolist())
    for answer in np.split(facts.ids[facts.answer], np.flatnonzero(np.diff(np.flatnonzero(facts.answer)) > 1) + 1):
        assert said.count(tokenizer.decode(answer.tolist()).strip()) >= 2
    size = int(copy.answer.sum()) + 8
    assert copy.ids[-size:].tolist() == copy.ids[:size].tolist()
    assert corpus.digest == make_lessons(tokenizer, texts, 8, 700, 2, 0).digest != make_lessons(tokenizer, texts, 8, 700, 2, 1).digest
    with pytest.raises(ConfigError, match="something to learn from"):
        make_lessons(tokenizer, [], 1, 50, 1, 0)


LAYERS = (LayerSpec((0,), 8, 2, "gated_delta"), LayerSpec((0, 1)))


def test_original_and_hybrid_are_the_same_parameters() -> None:
    module = tiny_module()
    hybrid = hybrid_module(module, LAYERS)
    assert {*memories_of(hybrid)} == {name for name, _ in hybrid.named_parameters()} - {name for name, _ in module.named_parameters()}
    assert all(p is dict(hybrid.named_parameters())[name] for name, p in original_of(hybrid).named_parameters())
    ids = torch.randint(0, 70, (1, 8))
    with torch.no_grad():
        torch.testing.assert_close(original_of(hybrid)(ids), module(ids))
        torch.testing.assert_close(hybrid(ids), module(ids))  # nobody has left the window


def test_mixers_learn_on_the_originals_activations() -> None:
    module, batch = tiny_module(), some_batch(120)
    hybrid = hybrid_module(module, LAYERS)
    objective = Mixers(original_of(hybrid))

    def never() -> torch.Tensor:
        raise AssertionError("the hybrid's own states are not needed")

    for parameter in module.parameters():
        parameter.requires_grad_(False)
    optimiser = torch.optim.Adam(memories_of(hybrid).values(), 3e-2)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = objective(hybrid, never, batch)
        assert loss.terms == 1  # of the two layers one has memories
        loss.total.backward()
        optimiser.step()
        losses.append(float(loss.total))
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is None for p in module.parameters())


def test_a_mixer_that_misses_nothing_has_no_loss() -> None:
    hybrid = hybrid_module(tiny_module(), (LayerSpec((0,), 200, 0, "gated_delta"), LayerSpec((0, 1))))
    assert float(Mixers(original_of(hybrid))(hybrid, lambda: torch.zeros(0), some_batch(120)).total) < 1e-10


def test_the_teachers_logits_are_the_originals() -> None:
    module, batch = tiny_module(), some_batch()
    hybrid = hybrid_module(module, LAYERS)
    for part in hybrid.modules():
        if isinstance(part, Memory):
            torch.nn.init.normal_(part.gate.bias)
    with torch.no_grad():
        expected = module.logits(final_states(module, batch))
    torch.testing.assert_close(OriginalLogits(original_of(hybrid))(batch)(slice(0, 5)), expected[:5])
