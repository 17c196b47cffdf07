"""Teaching a painter: emblems and their colours, what is never shown, the palette, the autoencoder, and the whole run on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import save_file
from tokenizers import AddedToken, decoders, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE

from emblem_net import EmblemSettings, ShownEmblems, train_emblems
from emblems import (
    ARTISTS,
    COLOURS,
    Emblem,
    choose_palette,
    codes_of,
    data_of,
    farthest,
    is_unseen,
    is_unseen_colour,
    is_unseen_concept,
    main_colour,
    matched,
    recoloured,
    to_learn,
    unseen_colours,
    unseen_concepts,
    unseen_pairs,
    with_moved,
    words_of,
)
from ingle.core.errors import ConfigError
from ingle.home.pictures import Illustration
from ingle.media.painter import CODES, WORDS, prompt_of
from ingle.model.hf_config import config_from_hf
from ingle.model.tensor import expected_shapes
from ingle.model.tokenizer import Tokenizer, TokenizerFacts
from tests.cli.place import environment


def emblem(concept: str, artist: str = "noto", rgb: tuple[int, int, int] = (220, 30, 30), name: str = "") -> Emblem:
    """A disc of one colour, with a grey leaf."""
    y, x = np.mgrid[:64, :64]
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[(y - 34) ** 2 + (x - 32) ** 2 < 24**2] = rgb
    pixels[4:12, 30:34] = 90
    return Emblem(Illustration(artist, concept, name or f"thing {concept}", ("round",), "food-drink", "food-fruit", b""), pixels)


def word(i: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return f" {letters[i // 676]}{letters[i // 26 % 26]}{letters[i % 26]}"


def worded_tokenizer(words: int = 700) -> Tokenizer:
    """One token a byte, and some hundred words of one token each."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = FastTokenizer(BPE({c: i for i, c in enumerate(alphabet)}, []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken("<end>", special=True, normalized=False)])
    fast.add_tokens([AddedToken(word(i), normalized=False) for i in range(words)])
    return Tokenizer(fast, TokenizerFacts("bytes", eos_ids=(256,)))


def write_worded_model(folder: Path) -> Path:
    """A tiny Llama whose vocabulary has some hundred words, as a Hugging Face folder."""
    folder.mkdir(parents=True)
    fast = worded_tokenizer().fast
    fast.save(str(folder / "tokenizer.json"))
    template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>", "chat_template": template}))
    table: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": fast.get_vocab_size(), "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 2048, "hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "rope_theta": 10000.0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(table))
    random, shapes = np.random.default_rng(0), expected_shapes(config_from_hf(table))
    weights = {name: (0.1 * random.standard_normal(shape) + ("norm" in name)).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors")
    return folder


def test_a_main_hue_is_turned_and_the_rest_stays() -> None:
    red = emblem("A")
    assert main_colour(red.pixels) == "red"
    assert recoloured(red, "red") is None
    for colour in [*COLOURS][1:]:
        other = recoloured(red, colour)
        assert other is not None
        assert main_colour(other.pixels) == colour == other.colour
        assert (other.pixels[4:9, 31] == 90).all()
        assert (other.pixels[0] == 255).all()
        assert other.pixels.max(-1)[34, 32] == pytest.approx(220, abs=2)
    assert recoloured(emblem("B", rgb=(120, 120, 120)), "blue") is None
    assert main_colour(emblem("B", rgb=(120, 120, 120)).pixels) == ""


def test_what_is_never_shown_follows_from_the_concept_alone() -> None:
    concepts = [f"{number:04X}" for number in range(4000)]
    never = [one for one in concepts if is_unseen_concept(one)]
    assert 0.03 < len(never) / len(concepts) < 0.05
    assert all(is_unseen(one, artist) for one in never for artist in (*ARTISTS, "openclipart"))
    pairs = [[artist for artist in ARTISTS if is_unseen(one, artist)] for one in concepts if not is_unseen_concept(one)]
    assert {len(pair) for pair in pairs} == {0, 1}
    assert 0.1 < sum(map(len, pairs)) / len(concepts) < 0.14
    assert not any(is_unseen(one, "openclipart") for one in concepts if one not in never)


def test_examples_hold_nothing_that_is_unseen() -> None:
    emblems = [emblem(f"{number:04X}", artist) for number in range(300) for artist in ARTISTS]
    learnt = to_learn(emblems, 2, 0)
    assert all(not is_unseen(one.emblem.of.concept, one.emblem.of.artist) for one in learnt)
    assert all(not is_unseen_colour(one.emblem.of.concept, one.emblem.colour) for one in learnt if one.emblem.colour)
    prompts = [one.prompt for one in learnt]
    assert prompt_of("thing 0000", "noto") in prompts or is_unseen("0000", "noto")
    assert "draw:" in prompts
    assert any(one.emblem.colour and one.emblem.colour in one.prompt for one in learnt)
    assert to_learn(emblems, 2, 0)[5].prompt == learnt[5].prompt
    shown = {(one.emblem.of.concept, one.emblem.of.artist, one.emblem.colour) for one in learnt}
    for unseen in (unseen_pairs(emblems), unseen_concepts(emblems), unseen_colours(emblems)):
        assert unseen
        assert not shown & {(one.emblem.of.concept, one.emblem.of.artist, one.emblem.colour) for one in unseen}


def test_copies_are_moved_or_mirrored_and_keep_their_prompt() -> None:
    learnt = to_learn([emblem(f"{number:04X}") for number in range(20)], 1, 0)
    whole = with_moved(learnt, 2, 0)
    assert whole[: len(learnt)] == learnt
    assert len(whole) == 3 * len(learnt)
    assert [one.prompt for one in whole[len(learnt) :]] == [one.prompt for one in learnt] * 2
    for one, copy in zip(learnt, whole[len(learnt) :], strict=False):
        moves = [(down, right) for down in range(-3, 4) for right in range(-3, 4)]
        shapes = [one.emblem.pixels, one.emblem.pixels[:, ::-1]]
        found = [
            move for move in moves for pixels in shapes
            if (np.roll(pixels, move, (0, 1))[4:-4, 4:-4] == copy.emblem.pixels[4:-4, 4:-4]).all()
        ]  # fmt: skip
        assert found
        assert (copy.emblem.pixels[[0, -1]] == 255).all()
    assert with_moved(learnt, 0, 0) == learnt


def test_documents_are_prompts_and_64_words_of_which_the_words_are_learnt() -> None:
    tokenizer, palette = worded_tokenizer(), list(range(257, 257 + CODES))
    learnt = to_learn([emblem(f"{number:04X}") for number in range(30)], 0, 0)
    codes = np.random.default_rng(0).integers(0, CODES, (len(learnt) + 2, WORDS))
    data = data_of(tokenizer, learnt, learnt[:2], codes, palette)
    document = data.corpus.document(3)
    text = learnt[3].prompt + "".join(word(code) for code in codes[3])
    assert document.ids.tolist() == tokenizer.encode(text)
    assert document.answer.sum() == WORDS
    assert document.answer[-WORDS:].all()
    assert list(data.held_out) == [len(learnt), len(learnt) + 1]
    assert codes_of(document.ids[-WORDS:].tolist(), palette).tolist() == codes[3].tolist()
    with pytest.raises(ConfigError, match="must be words of the palette"):
        codes_of([0], palette)


def naive_farthest(rows: npt.NDArray[np.float32], count: int) -> list[int]:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    chosen = [int((unit @ unit.mean(0)).argmin())]
    while len(chosen) < count:
        chosen.append(int((unit @ unit[chosen].T).max(1).argmin()))
    return chosen


def test_the_palette_is_words_far_apart_each_once() -> None:
    rows = np.random.default_rng(0).standard_normal((957, 24)).astype(np.float32)
    assert farthest(rows, 40) == naive_farthest(rows, 40)
    tokenizer, codebook = worded_tokenizer(), np.random.default_rng(1).standard_normal((CODES, 16)).astype(np.float32)
    palette = choose_palette(tokenizer, rows, codebook)
    assert len(set(palette)) == CODES
    assert set(palette) <= set(words_of(tokenizer, 957))
    text = "".join(tokenizer.token_bytes(token).decode() for token in palette)
    assert tokenizer.encode("draw: it:" + text)[-CODES:] == palette
    with pytest.raises(ConfigError, match="must have 512 words"):
        choose_palette(worded_tokenizer(300), rows, codebook)


def test_near_codes_get_near_rows() -> None:
    rng = np.random.default_rng(0)
    hidden = (rng.standard_normal((64, 8)) * 1.5 ** np.arange(8)).astype(np.float32)
    order = rng.permutation(64)
    row_of = matched(hidden, np.concatenate([hidden, np.zeros((64, 5), np.float32)], 1)[order])
    assert [int(order[row]) for row in row_of] == list(range(64))


def test_the_autoencoder_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    pixels = np.stack([emblem("A", rgb=(6 * i, 90, 250 - 5 * i)).pixels for i in range(40)])
    what = ShownEmblems(pixels, np.full(40, 1 / 40))
    settings = EmblemSettings(steps=10, batch=4, free_steps=4, save_every=3)
    said: list[str] = []
    whole = train_emblems(what, settings, tmp_path / "a", said.append)
    assert whole is not None
    calls = iter([False] * 8 + [True] * 99)
    assert train_emblems(what, settings, tmp_path / "b", said.append, lambda: next(calls)) is None
    again = train_emblems(what, settings, tmp_path / "b", said.append)
    assert again is not None
    for name, values in whole.state_dict().items():
        assert torch.equal(values, again.state_dict()[name]), name
    assert len(set(whole.codes(torch.rand(8, 3, 64, 64)).ravel().tolist())) > 1


def test_the_codebook_begins_at_k_means_and_unused_codes_move() -> None:
    from emblem_net import EmblemNet

    net, generator = EmblemNet(), torch.Generator().manual_seed(0)
    vectors = torch.randn(4000, 16, generator=generator)
    net.begin_codebook(vectors, generator)
    codes = net.nearest(vectors)
    apart = (vectors[:, None] - net.codebook[None]).square().sum(-1)
    assert (codes == apart.argmin(1)).float().mean() > 0.999
    spread = float((vectors - net.codebook[codes]).square().mean())
    assert spread < 0.7 * float((vectors - vectors[:CODES][(vectors @ vectors[:CODES].T).argmax(1)]).square().mean())
    net.counts[7] = 0.0
    net.follow(vectors[:64], net.nearest(vectors[:64]), generator)
    assert net.counts[7] == 1.0
    assert (net.codebook[7] == vectors[:64]).all(1).any()


def test_the_loss_is_among_words_of_the_palette_alone() -> None:
    from types import SimpleNamespace

    from painter_training import OfPalette

    torch.manual_seed(0)
    weight, states, targets = torch.randn(50, 8), torch.randn(6, 8), torch.tensor([3, 9, 9, 20, 4, 3])
    palette = (20, 3, 9, 4)
    module: Any = SimpleNamespace(lm_head=SimpleNamespace(weight=weight))
    batch: Any = SimpleNamespace(targets=targets)
    loss = OfPalette(palette)(module, lambda: states, batch)
    logits = (states @ weight.T)[:, list(palette)]
    wanted = -logits.log_softmax(-1)[torch.arange(6), torch.tensor([palette.index(int(one)) for one in targets])].sum()
    assert float(loss.total) == pytest.approx(float(wanted), rel=1e-5)
    assert loss.terms == 6


def test_a_whole_run_gives_a_model_that_paints_and_speaks_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import painter_training
    from ingle.core.message import Request
    from ingle.engine.answer import answer, write
    from ingle.engine.language_model import painted, painting_request
    from ingle.engine.loading import Opener
    from ingle.home.kept import get_kept
    from ingle.home.place import Home
    from ingle.train.loop_settings import TrainSettings
    from ingle.tuning.low_rank_settings import LowRankSettings
    from painter_training import PainterSettings
    from tests.cli.place import ingle
    from tests.tuning.place import admitting

    home = Home(tmp_path / "home")
    ingle(home.root, "pull", str(write_worded_model(tmp_path / "model")), "--name", "tiny")
    kept = get_kept(home, "tiny")
    shown = {artist: [emblem(f"{number:04X}", artist, (9 * number, 99, 250 - 9 * number)) for number in range(25)] for artist in ARTISTS}
    monkeypatch.setattr(painter_training, "emblems", lambda _home, artist, *_: shown.get(artist, []))
    settings = PainterSettings(
        families=("food-drink",), colours=1, emblems=EmblemSettings(steps=8, batch=4, free_steps=3, save_every=4),
        low_rank=LowRankSettings(rank=4), train=TrainSettings(epochs=1, batch_tokens=512),
    )  # fmt: skip
    made = painter_training.tune_painter(home, kept, "painter", settings, admitting(home))
    assert made.delta.kind == "painter"
    assert made.report["concepts"] == len({one.of.concept for one in shown["noto"] if not is_unseen_concept(one.of.concept)})
    again = painter_training.tune_painter(home, kept, "painter", settings, admitting(home))
    assert again.delta.digest == made.delta.digest

    opener = Opener()
    plain, model = opener(home, kept, lambda *_: None), opener(home, made.kept, lambda *_: None)
    assert model.backend is plain.backend
    ask = Request(prompt="draw: thing 0003, noto:", max_tokens=10, logprobs=2)
    said = [[(chunk.text, chunk.logprobs) for chunk in answer(one, ask)] for one in (plain, model)]
    assert said[0] == said[1]
    request = painting_request(model, "thing 0003", "noto")
    [(_, text)] = write(model.answering(request), [request])
    assert painted(model, text).pixels.shape == (64, 64, 3)


def test_the_recipe_tells_errors_as_the_program_does(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "recipes" / "painter" / "train.py"
    for arguments, code, said in ((["nobody"], 3, "nobody is not kept"), (["--foo"], 2, "See `train.py --help`")):
        done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False, env=environment(tmp_path))
        assert done.returncode == code and said in done.stderr
