"""The network that tells the same question in other words from another one: right as BERT, and right about questions."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from ingle.adapt.matcher import (
    FOLDER,
    GROUP,
    HEADS,
    LONGEST,
    WEIGHTS_FILE,
    Matcher,
    dequantised,
    encode,
    matcher,
    odds_of,
    quantised,
    tokenizer_of,
)

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "who", "runs", "the", "mill", "bak", "##ery", "?", "a", "##s"]


def bert(layers: int = 2, width: int = 48) -> BertModel:
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(PIECES), hidden_size=width, num_hidden_layers=layers, num_attention_heads=HEADS, intermediate_size=4 * width,
        hidden_act="gelu_pytorch_tanh",
    )  # fmt: skip
    made = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for values in made.parameters():  # also norms and biases, which begin as ones and zeros
            values.add_(torch.randn_like(values) * 0.2)
    return made


def weights_of(made: BertModel) -> dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]:
    return {name: values.numpy() for name, values in made.state_dict().items() if "position_ids" not in name}


@pytest.mark.parametrize("tokens", [1, 2, 17, 64])
def test_the_encoder_is_bert(tokens: int) -> None:
    made, draw = bert(), np.random.default_rng(tokens)
    ids, segments = draw.integers(0, len(PIECES), tokens), np.sort(draw.integers(0, 2, tokens))
    with torch.no_grad():
        theirs = made(input_ids=torch.from_numpy(ids)[None], token_type_ids=torch.from_numpy(segments)[None]).last_hidden_state[0].numpy()
    assert np.abs(encode(weights_of(made), ids, segments) - theirs).max() < 2e-5


def test_a_pair_is_read_as_bert_reads_it() -> None:
    ids, segments = Matcher(tokenizer_of(PIECES), {}).row("Who runs the bakery?", "the mills")
    assert [PIECES[number] for number in ids] == [
        "[CLS]", "who", "runs", "the", "bak", "##ery", "?", "[SEP]", "the", "mill", "##s", "[SEP]",
    ]  # fmt: skip
    assert segments.tolist() == [0] * 8 + [1] * 4


def test_of_a_long_question_the_beginning_is_read() -> None:
    ids, segments = Matcher(tokenizer_of(PIECES), {}).row("mill " * 500, "bakery " * 500)
    assert len(ids) == len(segments) == 2 * LONGEST + 3


def test_four_bits_lose_half_a_step_and_nothing_the_second_time() -> None:
    weights = weights_of(bert(1, 3 * GROUP)) | {"head.weight": np.ones((1, GROUP), np.float32)}
    stored = quantised(weights)
    back = dequantised(stored)
    assert back.keys() == weights.keys()
    for name, values in weights.items():
        lost = np.abs(back[name] - values)
        if name in ("head.weight",) or values.ndim == 1:
            assert not lost.any(), name
            continue
        assert stored[name].nbytes * 8 == values.size * 4, name
        step = np.abs(values.reshape(len(values), -1, GROUP)).max(-1, keepdims=True) / 7
        assert (lost.reshape(len(values), -1, GROUP) <= step * 0.501).all(), name
        assert lost.any(), name
    again = quantised(back)
    assert all((again[name] == stored[name]).all() for name in stored)


def test_what_is_kept_is_small() -> None:
    assert (FOLDER / WEIGHTS_FILE).stat().st_size < 5_000_000


@pytest.mark.parametrize(("one", "other"), [
    ("Who keeps the bees at Fennel Rise?", "Whose job is it to look after the hives at Fennel Rise?"),
    ("From which platform does the Ostrel train leave?", "Where do I board the Ostrel train?"),
    ("What is the fine for a book that is brought back late?", "How much do I owe if I return a book after the due date?"),
])  # fmt: skip
def test_it_knows_words_that_no_thesaurus_here_has(one: str, other: str) -> None:
    assert odds_of(one, other) > 0
    assert odds_of(other, one) > 0


@pytest.mark.parametrize(("one", "other"), [
    ("Who keeps the bees at Fennel Rise?", "How many hives stand at Fennel Rise?"),
    ("From which platform does the Ostrel train leave?", "When does the Ostrel train leave?"),
    ("What is the fine for a book that is brought back late?", "How long may I keep a book?"),
    ("When does the Ostrel swimming bath open?", "When does the Ostrel swimming bath close?"),
    ("What does a ticket cost for adults?", "What does a ticket cost for children?"),
    ("Who is the mayor of Tallwick?", "Who was the first mayor of Tallwick?"),
])  # fmt: skip
def test_it_tells_what_lies_near(one: str, other: str) -> None:
    assert odds_of(one, other) < 0


def test_nothing_beside_a_pair_changes_its_odds() -> None:
    one, other = "Who runs the mill?", "Who is in charge of the mill?"
    assert matcher().score(one, other) == odds_of(one, other) == matcher().score(one, other)


def test_whatever_is_asked_the_odds_are_a_number() -> None:
    for text in ("", "?", "誰がパン屋を経営していますか", "\x00\ud7ff", "a" * 10_000, "[SEP] [CLS]"):
        assert np.isfinite(matcher().score(text, "Who runs the mill?"))
