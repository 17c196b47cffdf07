"""Encoders of texts are BERT, read what BERT reads, and are stored in four bits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from ingle.model import text_encoder
from ingle.model.text_encoder import (
    GROUP,
    HEADS,
    WORDS,
    TextEncoder,
    WordTable,
    dequantised,
    load_words,
    quantised,
    shipped_words,
    unigram_of,
)

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁who", "▁runs", "▁the", "▁mill", "▁bak", "ery", "?", "▁a", "s"]


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
    for format_, most in (("fp32", 2e-5), ("int8", 0.2)):
        weights = weights_of(made)
        words = WordTable(unigram_of([(piece, -1.0) for piece in PIECES]), {WORDS: weights.pop(WORDS)})
        ours = TextEncoder(words, weights, format_).read(ids, segments)
        assert np.abs(ours - theirs).max() < most
        assert np.median(np.abs(ours - theirs)) < most / 8


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


def test_the_words_that_ship_hold_every_letter_of_four_languages() -> None:
    words = shipped_words()
    unknown = words.tokenizer.token_to_id("<unk>")
    for text in (
        "Who runs the bakery?",
        "Wo ist die Straße, fährt Jürgen?",
        "Où est l'œuvre de la forêt ?",
        "¿Dónde está el niño?",
        "§ 4 – „ja“",
    ):
        assert unknown not in words.tokenizer.encode(text).ids, text
    assert words.tokenizer.get_vocab_size() == len(words.table[WORDS])


def test_other_words_have_another_digest(tmp_path: Path) -> None:
    folder = Path(text_encoder.__file__).parent
    table, pieces = (folder / text_encoder.WORDS_FILE).read_bytes(), (folder / text_encoder.PIECES_FILE).read_bytes()
    (tmp_path / text_encoder.WORDS_FILE).write_bytes(table)
    (tmp_path / text_encoder.PIECES_FILE).write_bytes(pieces)
    assert load_words(tmp_path).digest == shipped_words().digest
    (tmp_path / text_encoder.PIECES_FILE).write_bytes(pieces.replace(b"-1", b"-2", 1))
    assert load_words(tmp_path).digest != shipped_words().digest
