"""`ingle run`: where the prompt comes from, what is printed, what is recorded, and how it is stopped."""

import hashlib
import hmac
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from ingle.app.facts import request_digest
from ingle.app.house import open_rooms
from ingle.core.message import Message, Request, Sampling
from ingle.home.kept import get_kept
from ingle.home.place import Home
from ingle.home.turns import answers_kept
from tests.cli.place import COMMAND, environment, ingle
from tests.serve.conftest import copied
from tests.waiting import PATIENCE_S

SHORT = ("--max-tokens", "8", "--seed", "3")


def facts(home: Path, kind: str = "answer") -> list[dict[str, object]]:
    lines = ingle(home, "log", "--json", "--kind", kind, "--last", "1000").stdout.splitlines()
    return [json.loads(line)["facts"] for line in lines]


def test_prompts_from_everywhere_are_the_same(tiny_home: Path) -> None:
    by_argument = ingle(tiny_home, "run", "hello there", *SHORT).stdout
    assert by_argument.endswith("\n")
    assert by_argument.strip()
    assert ingle(tiny_home, "run", *SHORT, given=b"hello there\n").stdout == by_argument
    assert ingle(tiny_home, "run", "-", "tiny", *SHORT, given=b"\xef\xbb\xbfhello there").stdout == by_argument
    both = ingle(tiny_home, "run", "hello", *SHORT, given=b"there\n").stdout
    assert both == ingle(tiny_home, "run", "hello\n\nthere", *SHORT).stdout


def test_json_says_everything(tiny_home: Path) -> None:
    done = ingle(tiny_home, "run", "hello", "--json", "--logprobs", "2", "--stop", "zzz", *SHORT)
    told = json.loads(done.stdout)
    assert set(told) == {
        "text",
        "finish",
        "usage",
        "model",
        "model_digest",
        "seed",
        "parameters",
        "logprobs",
        "memories",
        "lessons",
        "nearly",
    }
    assert told["model"] == "tiny"
    assert len(told["model_digest"]) == 64
    assert told["seed"] == 3
    assert told["finish"] == "length"
    assert told["usage"]["completion_tokens"] == 8
    assert told["usage"]["decode_tokens_per_s"] > 0
    assert told["usage"]["prefill_tokens_per_s"] > 0
    assert (told["parameters"]["temperature"], told["parameters"]["repetition_window"]) == (0.3, 128)
    assert told["parameters"]["stop"] == ["zzz"]
    assert len(told["logprobs"]) == 8
    assert all(len(entry["top"]) == 2 for entry in told["logprobs"])
    again = json.loads(ingle(tiny_home, "run", "hello", "--json", "--max-tokens", "8", "--seed", "3").stdout)
    assert again["text"] == told["text"]


def test_what_keys_and_values_are_kept_in_is_part_of_the_model_that_answered(tiny_home: Path) -> None:
    told = {
        cache: json.loads(ingle(tiny_home, "run", "hello", "--json", "--cache", cache, *SHORT).stdout)
        for cache in ("auto", "float16", "int8")
    }
    digests = {cache: answer["model_digest"] for cache, answer in told.items()}
    assert digests["auto"] == digests["float16"] != digests["int8"]
    assert told["int8"]["usage"]["completion_tokens"] == 8
    by_setting = json.loads(ingle(tiny_home, "run", "hello", "--json", "--set", "chat.cache=int8", *SHORT).stdout)
    assert (by_setting["model_digest"], by_setting["text"]) == (digests["int8"], told["int8"]["text"])


def test_a_seed_that_was_drawn_can_be_given(tiny_home: Path) -> None:
    hot = ("--temperature", "2", "--top-p", "1", "--max-tokens", "12", "--json")
    first = json.loads(ingle(tiny_home, "run", "hello", *hot).stdout)
    other = json.loads(ingle(tiny_home, "run", "hello", *hot).stdout)
    again = json.loads(ingle(tiny_home, "run", "hello", *hot, "--seed", str(first["seed"])).stdout)
    assert other["seed"] != first["seed"]
    assert other["text"] != first["text"]
    assert again["text"] == first["text"]


def test_raw_goes_without_the_template(tiny_home: Path) -> None:
    raw = json.loads(ingle(tiny_home, "run", "hello", "--raw", "--json", *SHORT).stdout)
    chat = json.loads(ingle(tiny_home, "run", "hello", "--json", *SHORT).stdout)
    assert raw["usage"]["prompt_tokens"] == 5
    assert chat["usage"]["prompt_tokens"] > 20


def test_settings_file_set_and_options_in_this_order(tmp_path: Path, tiny_folder: Path) -> None:
    ingle(tmp_path, "pull", str(tiny_folder))
    (tmp_path / "config.toml").write_text(
        "[sampling]\ntop_k = 5\nmin_p = 0.1\nseed = 4\n[chat]\nmax_tokens = 3\nsystem = 'You are terse.'\n"
    )
    told = json.loads(
        ingle(tmp_path, "run", "hi", "--json", "--set", "sampling.min_p=0.2", "--set", "chat.max_tokens=4", "--top-k", "7").stdout
    )
    assert told["parameters"]["top_k"] == 7
    assert told["parameters"]["min_p"] == 0.2
    assert told["seed"] == 4
    assert told["usage"]["completion_tokens"] == 4
    alone = json.loads(ingle(tmp_path, "run", "hi", "--json", "--system", "").stdout)
    assert told["usage"]["prompt_tokens"] > alone["usage"]["prompt_tokens"]


def test_an_answer_that_only_repeats_itself_is_stopped_and_says_so(tiny_home: Path) -> None:
    again = ("--set", "sampling.repetition_penalty=0.01", "--set", "sampling.repetition_window=5")  # what was said is likelier
    circling = ("run", "hello", "--temperature", "0", "--max-tokens", "120", *again)
    assert json.loads(ingle(tiny_home, *circling, "--json").stdout)["finish"] == "length", "temperature 0 stays exact"
    limited = (*circling, "--set", "sampling.repeat_limit=40")
    told = json.loads(ingle(tiny_home, *limited, "--json").stdout)
    assert told["finish"] == "repetition" and told["usage"]["completion_tokens"] < 120
    assert "(stopped because it only repeated itself)" in ingle(tiny_home, *limited).stderr


def test_each_answer_is_a_fact_without_its_words(own_home: Home) -> None:
    told = json.loads(ingle(own_home.root, "run", "a quillfeather question", "--json", "--no-keep", *SHORT).stdout)
    [fact] = facts(own_home.root)
    assert fact["model"] == told["model_digest"]
    assert fact["completion_tokens"] == 8
    assert fact["prompt_tokens"] == told["usage"]["prompt_tokens"]
    assert fact["seed"] == 3
    assert fact["finish"] == "length"
    path = own_home.keys / "answers.key"
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o600
    key = bytes.fromhex(path.read_text().strip())
    drawn = {name: value for name, value in told["parameters"].items() if name not in ("max_tokens", "stop")} | {"logit_bias": ()}
    asked = Request((Message.of("user", "a quillfeather question"),), max_tokens=8, sampling=Sampling(**drawn))
    assert fact["request"] == request_digest(key, asked)
    assert fact["request"] != request_digest(bytes(32), asked)
    assert fact["answer"] == hmac.digest(key, told["text"].encode(), hashlib.sha256).hex()
    assert b"quillfeather" not in own_home.database_file.read_bytes()


def test_a_refused_request_is_a_fact_and_a_policy_refuses(own_home: Home) -> None:
    ingle(own_home.root, "run", "a secret <|im_end|>", *SHORT)
    own_home.policy.write_text('[guards]\ncontrol_tokens = "block"\n')
    assert "control tokens" in ingle(own_home.root, "run", "a secret <|im_end|>", *SHORT, code=2).stderr
    ingle(own_home.root, "run", "secret " * 400, *SHORT, code=2)
    by_guard, by_context = facts(own_home.root, "refuse")
    assert (by_guard["guard"], by_context["error"]) == ("control_tokens", "ContextError")
    assert "secret" not in json.dumps([by_guard, by_context])
    assert "refused a request (control_tokens)" in ingle(own_home.root, "log", "tiny").stdout


@pytest.mark.skipif(os.name == "nt", reason="pipes there say it otherwise")
def test_an_answer_whose_reader_left_is_a_fact_too(own_home: Home) -> None:
    command = [*COMMAND, "run", "hi", "--max-tokens", "100", "--seed", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(own_home.root)) as process:
        assert process.stdout is not None and process.stdout.read(1)
        process.stdout.close()
        process.wait(60)
    [fact] = facts(own_home.root)
    assert fact["finish"] == "cancelled" and 0 < int(fact["completion_tokens"]) < 100


def test_an_exposed_key_is_refused_after_the_answer(own_home: Home) -> None:
    ingle(own_home.root, "run", "hi", *SHORT)
    (own_home.keys / "answers.key").chmod(0o644)
    done = ingle(own_home.root, "run", "hi", *SHORT, code=7)
    assert done.stdout.strip(), "the answer itself is there"
    assert "chmod 600" in done.stderr


def test_ctrl_c_ends_an_answer_and_is_recorded(smollm2_home: Home) -> None:
    assert get_kept(smollm2_home, "smollm2")
    before = len(facts(smollm2_home.root))
    with subprocess.Popen(
        [*COMMAND, "run", "Write a very long story about a lighthouse.", "--temperature", "0"],
        env=environment(smollm2_home.root), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        text = b""
        while len(text) <= 10 and (more := os.read(process.stdout.fileno(), 10)):
            text += more
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        text += process.stdout.read()
        assert process.stderr.read() == b""
    assert 10 < len(text) < 2000
    assert text.endswith(b"\n")
    after = facts(smollm2_home.root)
    assert len(after) == before + 1
    assert after[-1]["finish"] == "cancelled"


def test_the_real_model_answers(smollm2_home: Home) -> None:
    done = ingle(smollm2_home.root, "run", "The capital of France is", "--raw", "--temperature", "0", "--max-tokens", "8")
    assert "Paris" in done.stdout
    assert done.stderr == ""


def test_the_last_question_is_kept_until_the_next_and_explained(tmp_path: Path, tiny_home: Path) -> None:
    home = copied(tiny_home, tmp_path / "home")
    for question in ("The first question.", "The second one. It says more."):
        ingle(home, "run", question, *SHORT)
    engine = open_rooms(Home(home))
    try:
        assert [seq for _, _, seq in answers_kept(engine)] == [facts_row(home)], "the words of the first are gone"
    finally:
        engine.dispose()
    why = ingle(home, "why", "--last")
    assert "“The second one. It says more.”" in why.stderr and "It answered: “" in why.stderr
    assert "the kept answer is the one of the ledger" in ingle(home, "replay", str(facts_row(home))).stdout
    assert "answer" in ingle(home, "account", "--last").stdout
    ingle(home, "run", "A secret.", "--no-keep", *SHORT)
    refused = ingle(home, "why", "--last", code=3).stderr
    assert "was not kept" in refused and "The newest that is kept: ingle why" in refused


def facts_row(home: Path) -> int:
    return int(json.loads(ingle(home, "log", "--json", "--kind", "answer", "--last", "1").stdout)["seq"])
