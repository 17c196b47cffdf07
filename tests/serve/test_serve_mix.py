"""One conversation with words, a picture, a drawing and sounds, in and out, on the model that comes with Ingle; and its replay."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingle.core.media import Picture
from ingle.home.place import Home
from ingle.media.picture import png_of
from tests.cli.place import ingle
from tests.homes import lent
from tests.parts import PARTS, with_parts
from tests.serve.servers import Server, error_of, serving

MODEL = "smollm2+sight+painter"


@pytest.fixture(scope="module")
def able(tmp_path_factory: pytest.TempPathFactory, smollm2_home: Home) -> Iterator[Server]:
    home = lent(smollm2_home, tmp_path_factory.mktemp("mix") / "home")
    with_parts(home, *PARTS, "efficientnet-lite0")
    for name in ("sight", "painter"):
        ingle(home.root, "pull", name)
    with serving(home.root, MODEL) as running:
        yield running


def disc(colour: tuple[int, int, int]) -> str:
    y, x = np.mgrid[:200, :200]
    pixels = np.full((200, 200, 3), 255, np.uint8)
    pixels[(y - 100) ** 2 + (x - 100) ** 2 < 70**2] = colour
    return "data:image/png;base64," + base64.b64encode(png_of(Picture(pixels))).decode()


def test_words_pictures_and_sounds_in_six_turns(able: Server) -> None:
    client, messages, answers = able.openai(), list[Any](), list[Any]()

    def turn(content: Any, **wishes: Any) -> Any:
        messages.append({"role": "user", "content": content})
        answer = client.chat.completions.create(model=MODEL, messages=messages, seed=1, max_tokens=24, store=True, **wishes)
        answers.append(answer)
        return answer.choices[0].message

    def said(content: Any) -> None:
        messages.append({"role": "assistant", "content": content})

    said(turn("Say a word about autumn.").content)
    said(turn([{"type": "image_url", "image_url": {"url": disc((220, 30, 30))}}, {"type": "text", "text": "What is this?"}]).content)
    [drawn] = turn("Draw a strawberry.").model_extra["images"]
    assert Image.open(io.BytesIO(base64.b64decode(drawn["image_url"]["url"].partition(",")[2]))).size == (256, 256)
    said([drawn])
    shown = turn("What is in your picture?")
    assert shown.content
    assert answers[-1].usage.prompt_tokens_details.model_dump()["image_tokens"] == 8, "the picture that was shown, and the one it drew"
    said(shown.content)
    speech = client.audio.speech.create(model="tts-1", voice="alloy", input="What is the capital of France?", response_format="wav").content
    heard = turn([{"type": "input_audio", "input_audio": {"data": base64.b64encode(speech).decode(), "format": "wav"}}])
    assert "capital of France" in answers[-1].model_extra["ingle"]["heard"][-1]["text"]
    said(heard.content)
    aloud = turn("Thank you. Say goodbye.", modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"})
    assert aloud.audio is not None and base64.b64decode(aloud.audio.data)[:4] == b"RIFF"
    for answer in answers:
        replayed = ingle(able.home.root, "replay", answer.id)
        assert replayed.stdout.count("yes") == 4, replayed.stdout


def test_text_is_the_plain_models_to_the_bit(able: Server, smollm2_server: Server) -> None:
    asked: Any = [{"role": "user", "content": "Name three colours of fire."}]
    plain, able_too = (
        server.openai().chat.completions.create(model=model, messages=asked, temperature=0, max_tokens=20, logprobs=True)
        for server, model in ((smollm2_server, "smollm2"), (able, MODEL))
    )
    assert plain.choices[0].message.content == able_too.choices[0].message.content
    assert [one.logprob for one in plain.choices[0].logprobs.content] == [one.logprob for one in able_too.choices[0].logprobs.content]  # type: ignore[union-attr]


def test_what_is_kept_for_a_model_is_used_by_itself(able: Server) -> None:
    shown: Any = [{"type": "image_url", "image_url": {"url": disc((220, 30, 30))}}, {"type": "text", "text": "What is this?"}]
    with serving(able.home.root, "smollm2") as server:
        client = server.openai()

        def asked(content: Any) -> Any:
            return client.chat.completions.create(model="smollm2", messages=[{"role": "user", "content": content}], max_tokens=12, seed=1)

        assert asked(shown).model == "smollm2+sight", "the answer says which model acted"
        assert asked("Draw a strawberry.").model == "smollm2+painter" and asked("Hello.").model == "smollm2"
        assert client.images.generate(model="smollm2", prompt="a strawberry").data
        assert asked(shown).usage.prompt_tokens_details.model_dump()["image_tokens"] == 4, "one picture"
        assert asked("Draw a strawberry.").choices[0].message.model_extra["images"]
        refused = server.chat("Draw a cat.", model="smollm2")
        assert refused.status_code == 400
        said = error_of(refused)["message"]
        assert "has learnt 47 things, and this is none of them (cat)" in said and "strawberry" in said
        assert asked("Say a word about autumn.").choices[0].message.content
        assert [row.subject for row in server.answers()[-3:]] == ["smollm2+sight", "smollm2+painter", "smollm2"]
