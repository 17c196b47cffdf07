"""OpenAI's own package against a real server: what people's programs do all day."""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.serve.servers import CONTEXT, Server

HI: Any = [{"role": "user", "content": "Write something."}]
WARM: dict[str, Any] = {"temperature": 1.5, "max_tokens": 24}


def drawn(server: Server, seed: int, **changes: Any) -> str:
    answer = server.openai().chat.completions.create(model="tiny", messages=HI, seed=seed, **(WARM | changes))
    return answer.choices[0].message.content or ""


def test_a_whole_answer_has_all_that_the_client_reads(server: Server) -> None:
    answer = server.openai().chat.completions.create(model="tiny", messages=HI, max_completion_tokens=12, seed=3)
    assert answer.object == "chat.completion" and answer.model == "tiny" and answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint and answer.system_fingerprint.startswith("fp_")
    [choice] = answer.choices
    assert (choice.index, choice.message.role, choice.finish_reason) == (0, "assistant", "length")
    assert choice.message.content and choice.message.refusal is None and choice.message.tool_calls is None
    assert answer.usage is not None and answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert answer.usage.prompt_tokens_details is not None and answer.usage.prompt_tokens_details.cached_tokens is not None


def test_what_is_streamed_is_what_comes_whole(server: Server) -> None:
    client = server.openai()
    stream = client.chat.completions.create(model="tiny", messages=HI, seed=5, stream=True, stream_options={"include_usage": True}, **WARM)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == drawn(server, 5)
    assert chunks[0].choices[0].delta.role == "assistant" and all(chunk.choices[0].delta.role is None for chunk in chunks[1:-1])
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert len({chunk.id for chunk in chunks}) == 1 and {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert all(chunk.usage is None for chunk in chunks[:-1]) and chunks[-1].choices == []
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 24
    plain = list(client.chat.completions.create(model="tiny", messages=HI, seed=5, stream=True, **WARM))
    assert all(chunk.usage is None for chunk in plain)


def test_the_streaming_helper_of_the_package_puts_the_answer_together(server: Server) -> None:
    held: Any = {"extra_body": {"grammar": "start: /[a-z]{5,9}/"}, "seed": 5}  # so that it ends: the helper calls a cut answer an error
    with server.openai().chat.completions.stream(model="tiny", messages=HI, **held, **WARM) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == drawn(server, **held)


def test_asynchronous_clients_are_answered_side_by_side(server: Server) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:

            async def one(seed: int) -> str:
                if seed % 2:
                    answer = await client.chat.completions.create(model="tiny", messages=HI, seed=seed, **WARM)
                    return answer.choices[0].message.content or ""
                stream = await client.chat.completions.create(model="tiny", messages=HI, seed=seed, stream=True, **WARM)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

            return list(await asyncio.gather(*map(one, range(12))))

    together = asyncio.run(ask())
    assert together == [drawn(server, seed) for seed in range(12)]
    assert len(set(together)) == 12


def test_the_same_seed_is_the_same_answer_whoever_else_is_there(server: Server) -> None:
    alone = drawn(server, 42)
    assert drawn(server, 42) == alone != drawn(server, 43)
    with ThreadPoolExecutor(8) as pool:
        crowd = [pool.submit(drawn, server, seed, max_tokens=200) for seed in range(100, 116)]
        again = [pool.submit(drawn, server, 42) for _ in range(8)]
        assert {one.result() for one in again} == {alone}
        assert len({one.result() for one in crowd}) == 16


def test_without_a_seed_answers_differ_and_name_the_seed_that_repeats_them(server: Server) -> None:
    answers = [server.openai().chat.completions.create(model="tiny", messages=HI, **WARM) for _ in range(3)]
    assert len({answer.choices[0].message.content for answer in answers}) == 3
    for answer in answers:
        [seed] = answer.to_dict()["ingle"]["seeds"]  # type: ignore[index, call-overload]
        assert drawn(server, seed) == answer.choices[0].message.content


def test_several_choices_are_drawn_apart_whole_and_streamed(server: Server) -> None:
    client = server.openai()
    whole = client.chat.completions.create(model="tiny", messages=HI, n=3, seed=7, **WARM)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    said = [choice.message.content for choice in whole.choices]
    assert len(set(said)) == 3 and said == [drawn(server, 7 + i) for i in range(3)]
    assert whole.usage is not None and whole.usage.completion_tokens == 72
    told = ["", "", ""]
    for chunk in client.chat.completions.create(model="tiny", messages=HI, n=3, seed=7, stream=True, **WARM):
        for choice in chunk.choices:
            told[choice.index] += choice.delta.content or ""
    assert told == said


def test_an_answer_ends_before_a_stop_string(server: Server) -> None:
    full = drawn(server, 9, max_tokens=60)
    at = next(i for i in range(10, 50) if full[i].isascii() and full[i].isprintable() and full[i] not in full[:i])
    for stop in (full[at], [full[at], "never there"]):
        answer = server.openai().chat.completions.create(model="tiny", messages=HI, seed=9, stop=stop, temperature=1.5, max_tokens=60)
        assert answer.choices[0].message.content == full[:at] and answer.choices[0].finish_reason == "stop"


def test_log_probabilities_tell_what_was_drawn_and_what_else_might_have_been(server: Server) -> None:
    answer = server.openai().chat.completions.create(
        model="tiny", messages=HI, seed=1, temperature=0, max_tokens=6, logprobs=True, top_logprobs=4
    )
    assert answer.choices[0].logprobs is not None and answer.choices[0].logprobs.content is not None
    entries = answer.choices[0].logprobs.content
    assert len(entries) == 6
    for entry in entries:
        assert len(entry.top_logprobs) == 4 and entry.bytes
        assert entry.logprob == entry.top_logprobs[0].logprob == max(other.logprob for other in entry.top_logprobs) <= 0
    assert b"".join(bytes(entry.bytes or ()) for entry in entries).decode(errors="replace") == answer.choices[0].message.content
    bare = server.openai().chat.completions.create(model="tiny", messages=HI, max_tokens=2, logprobs=True)
    assert bare.choices[0].logprobs and bare.choices[0].logprobs.content and bare.choices[0].logprobs.content[0].top_logprobs == []
    streamed = server.openai().chat.completions.create(
        model="tiny", messages=HI, seed=1, temperature=0, max_tokens=6, logprobs=True, top_logprobs=4, stream=True
    )
    pieces = [chunk.choices[0].logprobs for chunk in streamed if chunk.choices]
    assert [entry.logprob for piece in pieces if piece for entry in piece.content or ()] == [entry.logprob for entry in entries]


def test_a_bias_and_penalties_change_what_is_drawn(server: Server) -> None:
    client = server.openai()

    def tokens(**changes: Any) -> list[str]:
        answer = client.chat.completions.create(model="tiny", messages=HI, temperature=0, max_tokens=40, logprobs=True, seed=1, **changes)
        assert answer.choices[0].logprobs and answer.choices[0].logprobs.content
        return [entry.token for entry in answer.choices[0].logprobs.content]

    assert set(tokens(logit_bias={"77": 100})) == {tokens(logit_bias={"77": 100})[0]}
    plain = tokens()
    assert len(set(plain)) < 40  # greedy and tiny: it repeats itself
    assert len(set(tokens(frequency_penalty=2, presence_penalty=2))) > len(set(plain))


def test_plain_completions_with_echo_and_log_probabilities(server: Server) -> None:
    client = server.openai()
    one = client.completions.create(model="tiny", prompt="Once upon", max_tokens=5, temperature=0, seed=1)
    assert one.object == "text_completion" and one.choices[0].finish_reason == "length" and one.choices[0].text
    many = client.completions.create(model="tiny", prompt=["Once upon", "a time"], n=2, max_tokens=5, temperature=0)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3] and many.choices[0].text == one.choices[0].text
    assert many.choices[0].text == many.choices[1].text and many.choices[2].text == many.choices[3].text
    scored = client.completions.create(model="tiny", prompt="Once upon", max_tokens=0, echo=True, logprobs=2)
    assert scored.choices[0].text == "Once upon"
    facts = scored.choices[0].logprobs
    assert facts is not None and facts.tokens is not None and facts.token_logprobs is not None and facts.text_offset is not None
    assert "".join(facts.tokens) == "Once upon" and facts.text_offset == list(range(9))
    assert facts.token_logprobs[0] is None and all(value < 0 for value in facts.token_logprobs[1:])
    assert facts.top_logprobs is not None and {len(top) for top in facts.top_logprobs[1:]} <= {1, 2}  # two halves of characters look alike
    ids = client.completions.create(model="tiny", prompt=[50, 51, 52], max_tokens=3, echo=True, logprobs=0)
    assert ids.choices[0].logprobs and len(ids.choices[0].logprobs.tokens or ()) == 6
    streamed = client.completions.create(model="tiny", prompt="Once upon", max_tokens=5, temperature=0, seed=1, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == one.choices[0].text


def test_more_prompts_than_one_user_may_have_places_take_turns(server: Server) -> None:
    answer = server.openai().completions.create(model="tiny", prompt=[f"prompt {i}" for i in range(128)], max_tokens=2, temperature=0)
    assert [choice.index for choice in answer.choices] == list(range(128))
    one = server.openai().completions.create(model="tiny", prompt="prompt 100", max_tokens=2, temperature=0)
    assert answer.choices[100].text == one.choices[0].text


class Dish(BaseModel):
    kind: Literal["soup", "salad", "cake"]
    servings: int
    warm: bool


def test_an_answer_is_what_the_schema_of_a_class_says(server: Server) -> None:
    for seed in range(4):
        answer = server.openai().chat.completions.parse(
            model="tiny", messages=HI, response_format=Dish, seed=seed, temperature=1.0, max_tokens=600, logit_bias={"18": -1}
        )
        dish = answer.choices[0].message.parsed
        assert isinstance(dish, Dish) and dish.kind in ("soup", "salad", "cake")


def test_an_answer_is_a_json_object_and_in_a_grammar(server: Server) -> None:
    client = server.openai()
    date: Any = {"type": "regex", "regex": r"\d{4}-\d{2}-\d{2}"}
    got = client.chat.completions.create(model="tiny", messages=HI, seed=2, extra_body={"response_format": date}, temperature=1.5)
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", got.choices[0].message.content or "") and got.choices[0].finish_reason == "stop"
    grammar = 'start: "yes" | "no" | "maybe " /[1-9][0-9]?/ "%"'
    for extra in ({"grammar": grammar}, {"response_format": {"type": "lark", "lark": grammar}}):
        said = {
            client.chat.completions.create(model="tiny", messages=HI, seed=i, extra_body=extra).choices[0].message.content for i in range(3)
        }
        assert all(re.fullmatch(r"yes|no|maybe [1-9][0-9]?%", word or "") for word in said)
    whole = client.completions.create(model="tiny", prompt="Well,", extra_body={"grammar": grammar})
    assert re.fullmatch(r"yes|no|maybe [1-9][0-9]?%", whole.choices[0].text)
    streamed = client.chat.completions.create(model="tiny", messages=HI, seed=0, stream=True, extra_body={"grammar": grammar})
    assert re.fullmatch(r"yes|no|maybe [1-9][0-9]?%", "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices))


def test_a_small_model_answers_a_json_object_and_in_words(smollm2_server: Server) -> None:
    client = smollm2_server.openai()
    asked: Any = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    assert "Paris" in (client.chat.completions.create(model="smollm2", messages=asked, temperature=0).choices[0].message.content or "")
    asked = [{"role": "user", "content": "Describe a cat as JSON with its name and age."}]
    answer = client.chat.completions.create(
        model="smollm2", messages=asked, response_format={"type": "json_object"}, temperature=0, max_tokens=200
    )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)
    else:
        assert (answer.choices[0].message.content or "").startswith("{")


def test_models_are_listed_and_looked_up(server: Server) -> None:
    client = server.openai()
    [model] = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("tiny", "model", "ingle")
    assert client.models.retrieve("tiny") == model
    with pytest.raises(openai.NotFoundError, match="Offered: tiny"):
        client.models.retrieve("gpt-4")


def test_errors_are_the_classes_that_programs_catch(server: Server) -> None:
    client = server.openai()
    with pytest.raises(openai.NotFoundError, match="Offered: tiny") as unknown:
        client.chat.completions.create(model="gpt-4", messages=HI)
    assert (unknown.value.code, unknown.value.param, unknown.value.type) == ("model_not_found", "model", "not_found_error")
    for field, value in (("temperature", 1e308), ("top_p", -1), ("max_tokens", 0), ("presence_penalty", 9), ("n", 0)):
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(**{"model": "tiny", "messages": HI, field: value})  # type: ignore[call-overload]
        assert (bad.value.param, bad.value.type) == (field, "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="context") as long:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x" * 2 * CONTEXT}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.AuthenticationError):
        server.openai("ingle-wrong").chat.completions.create(model="tiny", messages=HI)
