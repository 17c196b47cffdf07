"""Pictures in a conversation: what stands for them, where, and that it survives forks, caches and another turn."""

import io

import pytest
from PIL import Image

from ingle.core.errors import CheckpointError, RequestError, TemplateError
from ingle.core.media import ControlName, kind_of
from ingle.core.message import ImagePart, Message, Request, Sampling, TextPart
from ingle.engine.answer import Session, answer
from ingle.engine.language_model import LanguageModel, Seer
from tests.engine.colours import Colours, png
from tests.engine.test_answer import byte_tokenizer
from tests.engine.tiny import backend_of, random_checkpoint, tiny_config

CONFIG = tiny_config(vocab=260, context=2000)
TEMPLATE = "{% for m in messages %}{{ '<|user|>' }}{{ m.content }}<end>{% endfor %}<|assistant|>"
PARTS = """{% for m in messages %}{% for p in m['content'] %}{% if p['type'] == 'image' %}<|user|>{% else %}{{ p['text'] }}{% endif %}\
{% endfor %}{% endfor %}"""


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LanguageModel("tiny", backend_of(tmp_path_factory.mktemp("m"), random_checkpoint(CONFIG)), byte_tokenizer(TEMPLATE))


def seeing(model: LanguageModel, sight: Colours) -> LanguageModel:
    return LanguageModel(model.name, model.backend, model.tokenizer, seer=Seer(sight))


def asking(*messages: Message) -> Request:
    return Request(messages, max_tokens=6, sampling=Sampling(logit_bias=((256, -100.0),)))


def shown(*parts: ImagePart | str) -> Message:
    return Message("user", tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def test_a_picture_stands_where_it_was_put(blind: LanguageModel) -> None:
    model = seeing(blind, Colours())
    prompt = model.prompt(asking(shown("before ", png((255, 0, 0)), " after")))
    size = model.backend.config.vocab_size
    words = [-1 if kind_of(id_, size) else id_ for id_ in prompt.ids]
    text = model.tokenizer.decode([id_ for id_ in words if id_ >= 0])
    assert "before []" in text
    assert [id_ for id_ in prompt.ids if id_ >= size] == list(prompt.vectors)
    assert words.count(-1) == 4
    at = words.index(-1)
    assert model.tokenizer.decode(words[:at]).endswith("before [")
    assert model.tokenizer.decode(words[at + 4 :]).startswith("] after")


def test_another_picture_gives_another_answer_and_the_same_one_the_same(blind: LanguageModel) -> None:
    model = seeing(blind, Colours())

    def said(colour: tuple[int, int, int]) -> list[int]:
        return [token for chunk in answer(model, asking(shown("what? ", png(colour)))) for token in chunk.tokens]

    red, again, blue = said((250, 0, 0)), said((250, 0, 0)), said((0, 0, 250))
    assert red == again
    assert red != blue


def test_usage_counts_the_places_of_pictures_and_the_next_turn_reads_them_no_more(blind: LanguageModel) -> None:
    sight = Colours()
    model, session = seeing(blind, sight), Session(blind.backend.new_state())
    first = asking(shown(png((1, 2, 3)), " what is it?"))
    *_, last = answer(model, first, session)
    assert last.usage
    assert last.usage.image_tokens == 4
    second = asking(*first.messages, Message.of("assistant", "a thing"), Message.of("user", "sure?"))
    *_, last = answer(model, second, session)
    assert last.usage
    assert last.usage.cached_tokens > 4
    assert len(sight.looks) == 1, "what was seen is not encoded again"


def test_two_files_with_the_same_pixels_are_one_picture(blind: LanguageModel) -> None:
    model, file = seeing(blind, Colours()), io.BytesIO()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(file, "BMP")
    as_png, as_bmp = asking(shown(png((9, 9, 9)))), asking(shown(ImagePart(file.getvalue(), "image/bmp")))
    assert model.prompt(as_png).ids == model.prompt(as_bmp).ids


def test_a_model_of_words_says_how_to_see(blind: LanguageModel) -> None:
    with pytest.raises(RequestError, match="ingle pull sight"):
        blind.prompt(asking(shown(png((0, 0, 0)))))


def test_typed_markers_are_words(blind: LanguageModel) -> None:
    tokenizer = byte_tokenizer(PARTS)
    model = LanguageModel("tiny", blind.backend, tokenizer, seer=Seer(Colours("<|user|>")))
    typed = "\ue000 <|user|> " + chr(0xE001)
    prompt = model.prompt(asking(shown(typed, png((5, 5, 5)))))
    assert len(prompt.vectors) == 4
    assert typed in tokenizer.decode([id_ for id_ in prompt.ids if id_ < 260])


def test_a_template_that_knows_pictures_gets_all_content_as_parts(blind: LanguageModel) -> None:
    model = LanguageModel("tiny", blind.backend, byte_tokenizer(PARTS), seer=Seer(Colours("<|user|>")))
    with_picture = model.prompt(asking(Message.of("system", "be kind"), shown("see ", png((5, 5, 5)))))
    assert "be kindsee [" in model.tokenizer.decode([id_ for id_ in with_picture.ids if id_ < 260])
    assert "just words" in model.tokenizer.decode(model.encode(asking(Message.of("user", "just words"))))


def test_a_template_that_leaves_a_picture_out_is_refused(blind: LanguageModel) -> None:
    last_only = byte_tokenizer("{{ messages[-1].content }}")
    model = LanguageModel("tiny", blind.backend, last_only, seer=Seer(Colours()))
    with pytest.raises(TemplateError, match="0 of 1"):
        model.prompt(asking(shown(png((5, 5, 5))), Message.of("user", "and?")))


def test_a_sight_of_another_vocabulary_is_refused(blind: LanguageModel) -> None:
    model = seeing(blind, Colours(around=(ControlName("<nowhere>"), "]")))
    with pytest.raises(CheckpointError, match="<nowhere>"):
        model.prompt(asking(shown(png((5, 5, 5)))))


def test_little_is_remembered_of_much_that_was_seen(blind: LanguageModel) -> None:
    sight = Colours()
    seer = Seer(sight, budget_bytes=3 * 4 * 4 * CONFIG.hidden_size)
    for shade in (1, 2, 3, 3, 4, 1):
        seer.see(png((shade, 0, 0)), "picture")
    assert len(sight.looks) == 5, "three fit: the third is known, the first has gone"
