"""Words become phonemes: by the dictionary, by rules for endings, by letters, by the net."""

import numpy as np
import pytest

from ingle.home.parts import find_part
from ingle.home.place import Home
from ingle.media.mouths.piper import as_espeak
from ingle.media.phonemes import Phonemes, open_phonemes


@pytest.fixture(scope="module")
def phonemes(speech_home: Home) -> Phonemes:
    return open_phonemes(find_part(speech_home, "phonemes-en"))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("What is the capital of France?", "wˌʌt ɪz ðə kˈæpəTᵊl ʌv fɹˈæns?"),
        ("Name three animals that live on a farm.", "nˈAm θɹˈi ˈænəmᵊlz ðæt lˈIv ˌɔn ɐ fˈɑɹm."),
        ("the apple, the pear", "ði ˈæpᵊl, ðə pˈɛɹ"),
        ("I have to read it; he has read it", "ˌI hæv tə ɹˈid ɪt; hi hæz ɹˈɛd ɪt"),
        ("a record to record", "ɐ ɹˈɛkəɹd tə ɹəkˈɔɹd"),
        ("The CPU's URLs", "ðə sˌipˌijˈuz jˌuˌɑɹˈɛlz"),
        ("in the U.S.A. today", "ɪn ðə jˌuˌɛsˈA tədˈA"),
        ("THIS IS A TEST", "ðɪs ɪz ɐ tˈɛst"),
        ("walked, planned, wanted, going", "wˈɔkt, plˈænd, wˈɑntᵻd, ɡˈOɪŋ"),
    ],
)
def test_sentences(phonemes: Phonemes, text: str, want: str) -> None:
    assert phonemes.of(text) == want


def test_words_that_no_dictionary_has(phonemes: Phonemes) -> None:
    assert phonemes.of("café") == phonemes.of("cafe")
    for word in ("Zyxelbrunn", "smollm", "Ingle's", "state-of-the-art", "openSUSE"):
        assert any(sound in "AIOQWYaiuæɑəɛɪʊʌ" for sound in phonemes.of(word)), word
    assert phonemes.of("日本") == ""
    assert phonemes.of("") == ""
    assert phonemes.of("x" * 500)


def test_the_net_reads_words_of_the_dictionary_as_it_stands_there(phonemes: Phonemes) -> None:
    words = sorted(word for word, sounds in phonemes.gold.items() if word.isascii() and word.islower() and word.isalpha() and len(word) > 4)
    some = [words[i] for i in np.random.default_rng(0).integers(0, len(words), 40)]
    equal = sum(phonemes.unknown(word) == phonemes.gold[word] for word in some)
    assert equal >= 16, f"{equal} of 40"


def test_the_net_is_the_one_of_transformers(phonemes: Phonemes) -> None:
    """BART as the transformers library computes it, with the same weights: the same logits for a word and what was said of it."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    net = phonemes.unknown
    config = transformers.BartConfig(
        vocab_size=63, d_model=128, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1, decoder_attention_heads=1,
        encoder_ffn_dim=1024, decoder_ffn_dim=1024, max_position_embeddings=64, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
    )  # fmt: skip
    model = transformers.BartForConditionalGeneration(config).eval()
    weights = {name: torch.from_numpy(value) for name, value in net._weights.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("embed_tokens" in name or "lm_head" in name for name in missing)
    model.tie_weights()
    ids, said = [1, 30, 40, 20, 11, 2], [1, 5, 9, 33]
    memory = net._block("encoder", net._embed("encoder", ids), None)
    hidden = net._block("decoder", net._embed("decoder", said), memory)
    got = hidden @ net._weights["model.shared.weight"].T + net._weights["final_logits_bias"][0]
    with torch.no_grad():
        want = model(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([said])).logits[0].numpy()
    assert np.abs(got - want).max() < 1e-3


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("kˈæpəTᵊl", "kˈæpəɾəl"),
        ("wˈɔkɪŋ", "wˈɔːkɪŋ"),
        ("bˈɜɹd bˈɜɹi", "bˈɜːd bˈɜːɹi"),
        ("sˈi hˈæpi", "sˈiː hˈæpi"),
        ("bi", "biː"),
        ("lˈɛTəɹ — jˈuz", "lˈɛɾɚ , jˈuːz"),
        ("kɹiˈAt", "kɹiːˈeɪt"),
    ],
)
def test_phonemes_as_espeak_writes_them(ours: str, theirs: str) -> None:
    assert as_espeak(ours) == theirs
