"""Files of examples are read line by line; every line that can't be used is an error that says where and why, or is counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingle.core.errors import ConfigError
from ingle.train.example_files import ExampleTally, check_files, read_records
from tests.examples import examples

TALK = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def read(path: Path, skip_bad: bool = False) -> tuple[list[Any], ExampleTally]:
    tally = ExampleTally()
    return list(read_records([path], tally, skip_bad)), tally


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"messages": TALK}, "chat"),
        ({"messages": TALK, "tools": [{"type": "function"}], "id": 7}, "chat"),
        ({"prompt": "a", "completion": "b"}, "completion"),
        ({"prompt": TALK[:1], "completion": TALK[1:]}, "completion"),
        ({"text": "a"}, "text"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "pair"),
        ({"messages": TALK[:1], "chosen": TALK[1:], "rejected": "c"}, "pair"),
        ({"prompt": "a", "completion": "b", "label": False}, "label"),
        ({"instruction": "a", "input": "", "output": "b"}, "completion"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "id": "x"}, "chat"),
    ],
)
def test_every_shape_of_a_line(tmp_path: Path, row: Any, kind: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(row) + "\n", "utf-8")
    [record], _ = read(path)
    assert record.kind == kind
    assert record.where == f"{path}, line 1"


def test_alpaca_and_sharegpt_rows_are_what_they_are_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    said = [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
    rows = [
        {"instruction": "Translate.", "input": "chat", "output": "cat"},
        {"instruction": "Say hello.", "output": "Hello!"},
        {"conversations": said},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    [with_input, without, talk], _ = read(path)
    assert (with_input.prompt, with_input.answers) == ("Translate.\n\nchat", ("cat",))
    assert (without.prompt, without.answers) == ("Say hello.", ("Hello!",))
    assert [(turn["role"], turn["content"]) for turn in talk.prompt] == [
        ("system", "Be kind."), ("user", "Why?"), ("assistant", "Because."),
    ]  # fmt: skip
    (tmp_path / "data.csv").write_text("instruction,input,output\nTranslate.,chat,cat\n", "utf-8")
    [same], _ = read(tmp_path / "data.csv")
    assert same.digest == with_input.digest


def test_files_are_checked_before_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"question": 1}\n', "utf-8")
    with pytest.raises(ConfigError, match=r"line 2 must hold messages.*For example"):
        check_files([path])
    check_files([path], skip_bad=True)
    path.write_text('{"question": 1}\n', "utf-8")
    with pytest.raises(ConfigError, match=r"must hold at least one example.*1 bad lines were left out.*line 1"):
        check_files([path], skip_bad=True)
    check_files([])


BAD: list[tuple[bytes, str, str]] = [
    (b"{", "line 2", "must be one JSON object"),
    (b"[1]", "line 2", "must be a JSON object"),
    (b"\xff", "line 2", "must be UTF-8"),
    (b"{}", "line 2", "must hold messages, or prompt and completion"),
    (b'{"prompt": "a"}', "line 2: completion", "must be a string or a list of messages"),
    (b'{"text": 3}', "line 2: text", "must be a string"),
    (b'{"instruction": "a"}', "line 2: output", "must be a string"),
    (b'{"instruction": "a", "input": 3, "output": "b"}', "line 2: input", "must be a string"),
    (b'{"conversations": "a"}', "line 2: conversations", "must be a list of"),
    (b'{"conversations": [{"from": "dog", "value": "a"}]}', "line 2: conversations[0].from", "must be one of human"),
    (b'{"conversations": [{"from": "gpt"}]}', "line 2: conversations[0].content", "must be text"),
    (b'{"messages": []}', "line 2: messages", "must be a string or a list of messages"),
    (b'{"messages": [{"role": "boss", "content": ""}]}', "line 2: messages[0].role", "must be one of"),
    (b'{"messages": [{"role": "user"}]}', "line 2: messages[0].content", "must be text"),
    (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "line 2: messages[0].content", "must be text"),
    (b'{"messages": [{"role": "assistant", "tool_calls": [3]}]}', "line 2: messages[0].tool_calls[0]", "must look like"),
    (
        b'{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}',
        "line 2: messages[0].tool_calls[0].function.arguments", "must be JSON",
    ),
    (b'{"prompt": "a", "chosen": "b"}', "line 2: rejected", "must be a string"),
    (b'{"prompt": "a", "completion": "b", "label": "perhaps"}', "line 2: label", "must be true or false"),
    (b'{"prompt": "a", "completion": [{"role": "user", "content": "b"}]}', "line 2: completion", "the assistant's turns only"),
    (b'{"messages": [{"role": "user", "content": "a"}], "tools": "f"}', "line 2: tools", "must be a list"),
    (rb'{"text": "\ud800"}', "line 2", "must hold valid Unicode"),
    (b'{"messages": [{"role": "user", "content": "a", "weight": NaN}]}', "line 2", "finite numbers"),
    (b"[" * 100_000, "line 2", "must be one JSON object"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "field", "rule"), BAD, ids=range(len(BAD)))
def test_bad_lines_say_where_and_why_or_are_counted(tmp_path: Path, line: bytes, field: str, rule: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"text": "first"}\n' + line + b'\n\n{"text": "last"}\n')
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert caught.value.field == f"{path}, {field}"
    assert rule in caught.value.rule
    records, tally = read(path, skip_bad=True)
    assert [record.answers[0] for record in records] == ["first", "last"]
    assert tally.bad == 1
    assert f"{path}, {field}" in tally.told[0]


@examples(200)
@given(st.one_of(st.binary(max_size=60), st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=4), st.sampled_from(["user", "assistant", "tool"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(
        ["messages", "prompt", "completion", "chosen", "rejected", "label", "text", "role", "content", "tool_calls", "function", "name",
         "arguments", "tools"]
    ), inner, max_size=4)), max_leaves=12,
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_no_line_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, line: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(line)
    records, tally = read(path, skip_bad=True)
    assert len(records) + tally.bad + tally.copies <= line.count(b"\n") + 1


def test_copies_are_left_out_wherever_they_stand(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"text": "x"}\n{"text": "x", "id": 2}\n{"text": "y"}\n', "utf-8")
    records, tally = read(tmp_path)
    assert [record.answers[0] for record in records] == ["x", "y"]
    assert tally.copies == 4


def test_csv_rows_with_quotes_lines_and_bad_ones(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes('\ufeffprompt,completion\n"a, ""b""\nc",é\nalone\nd,e\n'.encode())
    records, tally = read(path, skip_bad=True)
    assert [(record.prompt, record.answers[0]) for record in records] == [('a, "b"\nc', "é"), ("d", "e")]
    assert tally.told == [f"{path}, line 4 must have as many cells as there are columns: 1 of 2"]
    path.write_bytes(b"text\nfine\n\xff\n")
    with pytest.raises(ConfigError, match=r"line 3 must be UTF-8"):
        read(path)
    path.write_text("prompt,completion,label\na,b,true\nc,d,0\ne,f,\n", "utf-8")
    with pytest.raises(ConfigError, match=r"data.csv, line 4"):
        assert [record.label for record in read_records([path], ExampleTally())] == [True, False]
    path.write_text("prompt,completion\na,b\n" + '"open\n' * 3, "utf-8")
    assert len(read(path, skip_bad=True)[0]) == 1


def test_text_files_are_documents_and_folders_are_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second\n\nwith a line between", "utf-8")
    (tmp_path / "a.md").write_text("first", "utf-8")
    (tmp_path / ".hidden.txt").write_text("no", "utf-8")
    (tmp_path / "picture.png").write_bytes(b"no")
    records, _ = read(tmp_path)
    assert [record.answers[0] for record in records] == ["first", "second\n\nwith a line between"]


def test_arguments_of_calls_become_tables_and_parts_become_text(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "tool_calls": [CALL]}]
    path.write_text(json.dumps({"messages": turns}), "utf-8")
    [record], _ = read(path)
    assert record.prompt[0]["content"] == "ab"
    assert record.prompt[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Oslo"}}
    assert record.prompt[1]["content"] == ""


def test_files_of_other_kinds_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("[]")
    for path, rule in ((tmp_path / "data.json", "must end in"), (tmp_path / "none", "is not there")):
        with pytest.raises(ConfigError, match=rule):
            read(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="must hold files"):
        read(tmp_path / "empty")
