"""What a conversion is made of: the budget, the search by effect, the lessons, and what is taught."""

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ingle.core.config import load_config
from ingle.core.errors import ConfigError
from ingle.core.progress import silent
from ingle.core.spec import LayerSpec
from ingle.home.place import Home
from ingle.hybridize.hybrid_lessons import (
    _SENTENCES,
    Mixers,
    _different_facts,
    hybrid_module,
    make_lessons,
    memories_of,
    original_of,
    read_texts,
    set_aside,
)
from ingle.hybridize.hybrid_settings import HybridLessonSettings, HybridSettings, SearchSettings
from ingle.hybridize.hybridizing import (
    FoundGroups,
    Group,
    Mixing,
    _sizes,
    all_groups,
    exchanged,
    find_groups,
    layers_of,
    loss_and_slope,
    loss_of,
    retrieval_count,
    share_of,
    shares_of,
)
from ingle.measure.data_sets import Text, part
from ingle.measure.suites import KINDS, SUITES, make_fact
from ingle.model.module_parts import RecurrentMemory
from ingle.train.forward import final_states
from ingle.train.objectives import Predictions, cross_entropy
from ingle.train.packing import make_batch
from tests.engine.tiny import tiny_config
from tests.train.tiny_train import chat_tokenizer, corpus_of, documents, tiny_module

SMALL = HybridSettings(window=8, sinks=2, search=SearchSettings(documents=2, tokens=180, rounds=2))
ALL = FoundGroups(0, tuple(itertools.product(range(3), range(2))), {})
"""Before any search of three layers."""
NEAR, PLACES = LayerSpec((), 8, 2), tuple(itertools.product(range(2), range(2)))
"""Of two layers."""


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
    with pytest.raises(ConfigError, match=r"data_share.*between 0 and 1"):
        HybridLessonSettings(data_share=1.5)
    with pytest.raises(ConfigError, match="must name at least one"):
        HybridLessonSettings(kinds=())


def test_one_setting_of_a_lesson_leaves_its_others_as_they_were() -> None:
    told, usual = load_config(HybridSettings, None, ["mixers.seed=1"]), HybridSettings()
    assert told == replace(usual, mixers=replace(usual.mixers, seed=1))


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
            torch.testing.assert_close(loss_of(module, batch, shares, NEAR), expected, rtol=1e-5, atol=1e-5)


def test_the_effect_is_the_slope_of_the_loss() -> None:
    module, batch = tiny_module(), some_batch()
    shares = torch.full((2, 2), 0.6)
    loss, found = loss_and_slope(module, batch, shares, NEAR, PLACES)
    with torch.no_grad():
        assert loss * len(batch.targets) == pytest.approx(float(loss_of(module, batch, shares, NEAR)), rel=1e-5)
    found = found * len(batch.targets)
    for place in PLACES:
        sides = []
        for step in (0.02, -0.02):
            moved = shares.clone()
            moved[place] += step
            with torch.no_grad():
                sides.append(float(loss_of(module, batch, moved, NEAR)))
        assert float(found[place]) == pytest.approx((sides[0] - sides[1]) / 0.04, rel=0.05, abs=2e-3)


@pytest.mark.parametrize("shares", [[[0.0, 0], [0, 0]], [[1, 1], [1, 1]], [[1, 0], [0, 1]], [[0.3, 1], [0, 0.3]], [[0, 0], [0.7, 0]]])
@pytest.mark.parametrize("asked", [[(1, 1)], PLACES])
def test_slopes_are_those_of_a_mixture_that_computes_all(shares: list[list[float]], asked: list[Group]) -> None:
    module, batch, told = tiny_module(), some_batch(), torch.tensor(shares, dtype=torch.float)
    asked = [*{*asked, *((layer, group) for layer, group in PLACES if shares[layer][group])}]

    def all_of_it(mixing: Mixing, q: Tensor, k: Tensor, *rest: Any) -> Tensor:
        full, near = (mixing.inner(q, k, *rest[:3], spec, rest[-1]) for spec in (LayerSpec((0, 1)), NEAR))
        return near + mixing.share.repeat_interleave(q.shape[1] // 2)[:, None] * (full - near)

    loss, found = loss_and_slope(module, batch, told, NEAR, asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mixing, "__call__", all_of_it)
        expected, slopes = loss_and_slope(module, batch, told, NEAR, asked)
    assert loss == pytest.approx(expected, rel=1e-6)
    for place in asked:
        assert float(found[place]) == pytest.approx(float(slopes[place]), rel=1e-4, abs=1e-7) and found[place] != 0


def test_groups_without_effect_are_seen_and_the_largest_effects_are_kept(texts: list[list[str]]) -> None:
    module = tiny_module(tiny_config(vocab=2000, layers=(LayerSpec((0, 1)),) * 3))
    with torch.no_grad():  # what these groups see reaches nobody
        module.model.layers[0].self_attn.o_proj.weight[:, :24] = 0
        module.model.layers[1].self_attn.o_proj.weight[:, 24:] = 0
    told: list[tuple[int, int]] = []
    corpus = make_lessons(chat_tokenizer(), [(texts, 2)], 180, 0, ("facts",))
    once = replace(SMALL, search=replace(SMALL.search, rounds=1, exchanges=0))
    [found] = find_groups(module, corpus, 2, once, ALL, lambda done, of: told.append((done, of)))
    assert [place for place, effect in found.effects.items() if effect == 0] == [(0, 0), (1, 1)]
    assert found.kept == tuple(sorted(sorted(found.effects, key=lambda place: -found.effects[place])[:2]))
    assert told == [(1, 2), (2, 2)]
    assert list(find_groups(module, corpus, 2, once, ALL)) == [found]


def test_a_search_goes_on_where_it_was(texts: list[list[str]]) -> None:
    module = tiny_module(tiny_config(vocab=2000, layers=(LayerSpec((0, 1)),) * 3))
    corpus = make_lessons(chat_tokenizer(), [(texts, 2)], 180, 0, ("facts",))
    first, second, last = found = list(find_groups(module, corpus, 2, SMALL, ALL))
    assert (len(first.kept), len(second.kept), second.rounds) == (3, 2, 2)
    assert set(second.kept) < set(first.kept)
    assert last.tried == (second.kept,)  # here no exchange promises anything
    for number, begun in enumerate(found, 1):
        assert list(find_groups(module, corpus, 2, SMALL, begun)) == found[number:]


def test_groups_are_exchanged_while_the_loss_falls(texts: list[list[str]]) -> None:
    module = tiny_module(tiny_config(vocab=2000, layers=(LayerSpec((0, 1)),) * 3))
    corpus = make_lessons(chat_tokenizer(), [(texts, 2)], 180, 0, ("facts",))

    def loss(kept: Sequence[Group]) -> float:
        batches = [make_batch(corpus, [i]) for i in range(2)]
        with torch.no_grad():
            return sum(float(loss_of(module, batch, shares_of(module.config, kept, 1), NEAR)) / len(batch.targets) for batch in batches) / 2

    pairs = list(itertools.combinations(ALL.kept, 2))
    worst = max(pairs, key=loss)
    often = replace(SMALL, search=replace(SMALL.search, exchanges=20))
    for step in (found := list(find_groups(module, corpus, 2, often, FoundGroups(2, worst, {})))):
        assert step.loss == pytest.approx(min(map(loss, step.tried)), rel=1e-5) and step.loss == pytest.approx(loss(step.kept), rel=1e-5)
    assert found[0].tried == (worst,) and len(set(found[-1].tried)) == len(found) > 2
    assert loss(found[-1].kept) < loss(worst) - 0.5 * (loss(worst) - min(map(loss, pairs)))
    for number, begun in enumerate(found, 1):
        assert list(find_groups(module, corpus, 2, often, begun)) == found[number:]
    fewer = replace(often, search=replace(often.search, exchanges=2))
    assert list(find_groups(module, corpus, 2, fewer, FoundGroups(2, worst, {}))) == found[:3]
    assert list(find_groups(module, corpus, 6, often, ALL)) == []


def test_what_is_exchanged_promises_more_than_it_costs() -> None:
    a, b, c, d = (0, 0), (0, 1), (1, 0), (1, 1)
    found = FoundGroups(1, (a, b), {a: 1.0, b: 0.1, c: 0.5, d: 0.4}, 2.0, ((a, b),))
    assert exchanged(found) == (a, c)
    assert exchanged(replace(found, tried=((a, b), (a, c)))) == (a, d)
    assert exchanged(replace(found, tried=((a, b), (a, c), (a, d)))) is None
    assert exchanged(replace(found, effects={a: 1.0, b: 0.2, c: 0.5, d: 0.4})) is None


def test_rounds_give_up_the_same_share() -> None:
    assert _sizes(90, 10, 3) == [43, 21, 10]
    assert _sizes(4, 4, 3) == []
    assert _sizes(4, 0, 2)[-1] == 0


def test_lessons_of_three_kinds(texts: list[list[str]]) -> None:
    tokenizer, kinds = chat_tokenizer(), ("plain", "facts", "copy", "facts")
    corpus = make_lessons(tokenizer, [(texts, 8)], 700, 0, kinds)
    assert corpus.sizes.max() <= 700
    plain, facts, copy, more = (corpus.document(i) for i in range(4))
    assert plain.answer.tolist() == [False] + [True] * 699
    for document in (facts, more):
        starts = np.flatnonzero(np.diff(document.answer.astype(int)) == 1)
        assert len(starts) == 5  # one for every 128 tokens
        said = tokenizer.decode(document.ids.tolist())
        for answer in np.split(document.ids[document.answer], np.flatnonzero(np.diff(np.flatnonzero(document.answer)) > 1) + 1):
            assert said.count(tokenizer.decode(answer.tolist()).strip()) >= 2
    size = int(copy.answer.sum()) + 8
    assert copy.ids[-size:].tolist() == copy.ids[:size].tolist()
    again, other = (make_lessons(tokenizer, [(texts, 8)], 700, seed, kinds) for seed in (0, 1))
    assert corpus.digest == again.digest != other.digest
    for nothing in ([], [["", " "]], [*texts, []]):
        with pytest.raises(ConfigError, match="something to learn from"):
            make_lessons(tokenizer, [(nothing, 1)], 50, 0, kinds)


def test_what_is_held_out_is_in_no_document_that_is_learnt(texts: list[list[str]]) -> None:
    tokenizer, sources = chat_tokenizer(), [*texts, ["alone"], [" ", " ".join(texts[0][0].split()[::-1])]]
    learnt, aside = set_aside(sources)
    assert all(texts == [text for text in source if text in texts] for source, texts in zip(sources, learnt, strict=True))
    assert all(learnt) and sum(map(len, aside)) < sum(map(len, learnt)) and not {*chain(*aside)} & {*chain(*learnt)}
    assert set_aside([source[::-1] for source in sources])[1] == [source[::-1] for source in aside]
    corpus = make_lessons(tokenizer, [(aside, 2), (learnt, 20)], 400, 0, ("plain", "copy"))
    grams = [{tuple(ids[i : i + 40]) for i in range(len(ids) - 40)} for ids in (corpus.document(i).ids.tolist() for i in range(22))]
    assert not set().union(*grams[:2]) & set().union(*grams[2:])


def test_documents_begin_as_prompts_do(texts: list[list[str]]) -> None:
    tokenizer = chat_tokenizer()
    tokenizer = replace(tokenizer, facts=replace(tokenizer.facts, bos_id=1, add_bos=True))
    corpus = make_lessons(tokenizer, [(texts, 3)], 300, 0, ("plain", "facts", "copy"))
    for document in (corpus.document(i) for i in range(3)):
        assert document.ids[0] == 1 and 1 not in document.ids[1:].tolist() and not document.answer[:2].any()
    assert corpus.sizes.max() == 300


def test_documents_hold_as_much_of_one_source_as_of_another() -> None:
    tokenizer, sources = chat_tokenizer(), [["mmmm " * 90, "mm"], [f"zzzz {i}" for i in range(2000)], ["w w w"]]
    said = tokenizer.decode(make_lessons(tokenizer, [(sources, 1)], 6000, 0, ("plain",)).document(0).ids.tolist())
    sizes = [len(tokenizer.encode("".join(re.findall(rf"{letter}[^mzw]*", said)))) for letter in "mzw"]
    assert max(sizes) < 1.2 * min(sizes)


def test_lessons_are_made_of_suites_of_texts(tiny_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [Text(str(i), str(i), f"text {i}") for i in range(40)]
    for name in HybridLessonSettings().suites:
        monkeypatch.setitem(SUITES, name, replace(SUITES[name], read=lambda *_: items))
    news, wiki = read_texts(tiny_home, HybridLessonSettings().suites, silent)
    held_out = {item.text for item in part(items, "held_out", SUITES["xsum-bits"].held_out)}
    assert set(news) == {item.text for item in items} - held_out
    assert 0 < len(wiki) < len(news)
    with pytest.raises(ConfigError, match=r"lessons.suites must be a suite of texts.*sst2.*wiki-bits"):
        read_texts(tiny_home, ("sst2",), silent)
    with pytest.raises(ConfigError, match="must name at least one"):
        HybridLessonSettings(suites=())


def test_pairs_of_words_are_among_the_facts(texts: list[list[str]]) -> None:
    tokenizer = chat_tokenizer()
    for seed in range(3):
        said = tokenizer.decode(make_lessons(tokenizer, [(texts, 1)], 4000, seed, ("facts",)).document(0).ids.tolist())
        keys = re.findall(r"\n\n(\w+) =", said)
        assert keys
        for key in keys:
            value = re.findall(rf"{key} = ?(\w+)\.", said)[0]
            assert re.search(rf"\n\n{key} = ?{value}", said)


NEWS = "The council of Leeds said on Friday that seven schools would close. Parents were angry."


def test_facts_of_lessons_are_none_that_a_suite_asks_for() -> None:
    draw = random.Random(0)
    facts = _different_facts(60, NEWS.split(), draw)
    assert {fact.kind for fact in facts} == {"number", "name", "words", "word"}
    assert len({fact.asked for fact in facts}) == 60
    assert all(fact.said == f"{fact.asked} {fact.answer}." and fact.answer for fact in facts)
    beginnings = {make_fact(kind, draw).asked.split(" of ")[0].split(" under ")[0] for kind in KINDS for _ in range(40)}
    assert len(_different_facts(60, [], draw)) == len({form for _, form in _SENTENCES})  # a text without words has one fact for each form
    assert not [fact for fact in facts for beginning in beginnings if fact.said.startswith(beginning)]


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
        losses.append(float(loss.total.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.grad is None for p in module.parameters())


def test_a_mixer_that_misses_nothing_has_no_loss() -> None:
    hybrid = hybrid_module(tiny_module(), (LayerSpec((0,), 200, 0, "gated_delta"), LayerSpec((0, 1))))
    assert float(Mixers(original_of(hybrid))(hybrid, lambda: torch.zeros(0), some_batch(120)).total.detach()) < 1e-10


def test_the_teachers_logits_are_the_originals() -> None:
    module, batch = tiny_module(), some_batch()
    hybrid = hybrid_module(module, LAYERS)
    for piece in hybrid.modules():
        if isinstance(piece, RecurrentMemory):
            torch.nn.init.normal_(piece.gate.bias)
    with torch.no_grad():
        expected = module.logits(final_states(module, batch))
    torch.testing.assert_close(Predictions(original_of(hybrid))(batch)(slice(0, 5)), expected[:5])
