"""`ingle chat` at a terminal (a pseudo one) and without."""

import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pexpect
import pytest

from ingle.adapt.choosing import Choice
from ingle.app.answering import AnswerRun
from ingle.app.here import Here
from ingle.app.house import House
from ingle.app.settings import Settings
from ingle.cli.commands import regenerate
from ingle.cli.conversation import TerminalConversation
from ingle.cli.generate import ShownAnswer
from ingle.cli.lines import TypedLines
from ingle.cli.talk import Talk
from ingle.core.errors import ConfigError, HomeError
from ingle.core.message import ImagePart, Message, TextPart
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source
from ingle.home.kept import get_kept
from ingle.home.place import Home
from tests.cli.place import COMMAND, CONTEXT, environment, ingle
from tests.waiting import PATIENCE_S, for_a_while, wait_until

PROMPT = "› "
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")


class Chat:
    """Somebody at a terminal."""

    def __init__(self, home: Path, *options: str) -> None:
        env = environment(home, {"TERM": "xterm-256color"})
        command, *arguments = [*COMMAND, "chat", *options]
        self.child = pexpect.spawn(command, arguments, env=env, encoding="utf-8", timeout=PATIENCE_S, dimensions=(30, 80))
        self.child.expect_exact(PROMPT)

    def say(self, line: str) -> str:
        """Types a line; what is shown until the next prompt, without colours."""
        self.child.sendline(line)
        return self.until_prompt()

    def until_prompt(self) -> str:
        self.child.expect(f"\n\r?(?:\x1b\\[[0-9;?]*[a-zA-Z])*{PROMPT}")
        return plain(self.child.before)

    def interrupt(self) -> None:
        """Ctrl-C, as late as a person would type it: Python's readline misses one that comes the moment it begins to wait."""
        status = Path(f"/proc/{self.child.pid}/stat")
        for _ in range(2):
            if status.exists():
                wait_until(lambda: status.read_text().rpartition(")")[2].split()[0] == "S", "it waits for keys")
            for_a_while(0.2)
        self.child.sendintr()

    def leave(self) -> int:
        self.child.sendeof()
        self.child.expect(pexpect.EOF)
        self.child.close()
        return int(self.child.exitstatus)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "")


@pytest.fixture
def chat(tiny_home: Path) -> Iterator[Chat]:
    likely = ("--temperature", "0.2", "--set", "sampling.repetition_penalty=1")  # rare bytes are no characters, and take more room
    chat = Chat(tiny_home, "--max-tokens", "10", "--seed", "1", *likely)
    yield chat
    chat.child.close(force=True)


def saved(chat: Chat, path: Path) -> list[dict[str, str]]:
    assert str(path) in chat.say(f"/save {path}").replace("\n", "")
    messages: list[dict[str, str]] = json.loads(path.read_text("utf-8"))["messages"]
    return messages


def test_a_conversation_with_every_command(chat: Chat, tmp_path: Path) -> None:
    assert all(f"/{name}" in chat.say("/help") for name in ("system", "save", "load", "undo", "regenerate", "clear", "stats", "quit"))
    assert "cut at chat.max_tokens = 10" in chat.say("hello")
    assert "tokens/s" in (told := chat.say("/stats"))
    assert "digest" in told
    assert "resident" in told
    chat.say("again")
    first = saved(chat, tmp_path / "talk.json")
    assert [message["role"] for message in first] == ["user", "assistant"] * 2
    assert [message["content"] for message in first[::2]] == ["hello", "again"]
    assert stat.S_IMODE((tmp_path / "talk.json").stat().st_mode) == 0o600
    assert "Removed: again" in chat.say("/undo")
    assert saved(chat, tmp_path / "talk.json") == first[:2]
    chat.say("/regenerate")
    again = saved(chat, tmp_path / "talk.json")
    assert again[0] == first[0] and again[1] != first[1], "with another seed, though --seed says one"
    assert "Set" in chat.say("/system Be kind.")
    assert "Be kind." in chat.say("/system")
    assert saved(chat, tmp_path / "talk.json")[0] == {"role": "system", "content": "Be kind."}
    assert "Cleared" in chat.say("/clear")
    assert "There is nothing to undo" in chat.say("/undo")
    assert "2 messages loaded" in chat.say(f"/load {tmp_path / 'talk.json'}")
    assert "Did you mean /stats" in chat.say("/stat")
    assert "is not there" in chat.say("/load nowhere.json").replace("\n", " ")
    (tmp_path / "other").write_text("mine")
    assert "something else than a conversation" in chat.say(f"/save {tmp_path / 'other'}").replace("\n", " ")
    assert (tmp_path / "other").read_text() == "mine"
    chat.child.sendline("/quit")
    chat.child.expect(pexpect.EOF)
    chat.child.close()
    assert chat.child.exitstatus == 0


def test_several_lines_and_slashes(chat: Chat, tmp_path: Path) -> None:
    chat.child.sendline("one\\")
    chat.child.expect_exact("… ")
    chat.say("two")
    for line in ('"""', "three", ""):
        chat.child.sendline(line)
        chat.child.expect_exact("… ")
    chat.say('four"""')
    chat.say("//help")
    chat.say("/etc/passwd is what?")
    questions = [message["content"] for message in saved(chat, tmp_path / "t.json") if message["role"] == "user"]
    assert questions == ["one\ntwo", "three\n\nfour", "/help", "/etc/passwd is what?"]


def test_a_full_context_is_said_and_the_talk_goes_on(chat: Chat) -> None:
    assert "context is" in chat.say("x" * (CONTEXT - 40))
    told = chat.say("more of it, and more")
    assert f"within the maximum context length of {CONTEXT} tokens" in told.replace("\n", " ")
    assert "/undo" in told
    assert "Removed: xxx" in chat.say("/undo")
    assert "cut at" in chat.say("short")
    assert chat.leave() == 0


def test_ctrl_c_at_the_prompt(chat: Chat) -> None:
    chat.child.send("half a line")
    chat.interrupt()
    chat.until_prompt()
    chat.interrupt()
    assert "once more leaves" in chat.until_prompt()
    chat.say("/stats")
    chat.interrupt()
    assert "once more leaves" in chat.until_prompt()
    chat.interrupt()
    chat.child.expect(pexpect.EOF)
    chat.child.close()
    assert chat.child.exitstatus == 0


def test_ctrl_c_in_the_middle_of_an_answer(smollm2_home: Home, tmp_path: Path) -> None:
    chat = Chat(smollm2_home.root, "--temperature", "0", "--no-history")
    chat.child.sendline("Write a very long story about a lighthouse.")
    chat.child.expect("lighthouse[^.]*[.,]")
    chat.child.expect("[a-z]{3}")
    for_a_while(0.3)
    chat.child.sendintr()
    assert "(stopped)" in (told := chat.until_prompt())
    assert "^C" not in told
    assert "once more" not in told
    told = chat.say("What is the capital of France? Answer with one word.")
    assert "Paris" in told
    messages = saved(chat, tmp_path / "t.json")
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert len(messages[1]["content"]) > 20
    assert "known from before" in (stats := chat.say("/stats"))
    assert not re.search(r"\b0 of \d+ were known", stats.replace("\n", "")), "the second turn must read only what is new"
    assert chat.leave() == 0
    rows = [json.loads(line)["facts"] for line in ingle(smollm2_home.root, "log", "--json", "--last", "2").stdout.splitlines()]
    assert [row["finish"] for row in rows] == ["cancelled", "stop"]


def test_history_is_private_and_can_be_turned_off(own_home: Home) -> None:
    chat = Chat(own_home.root, "--max-tokens", "2")
    chat.say("remember me")
    assert chat.leave() == 0
    path = own_home.root / "history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == "remember me"
    chat = Chat(own_home.root, "--max-tokens", "2")
    chat.child.send("\x1b[A")
    chat.child.expect_exact("remember me")
    chat.child.sendintr()
    chat.child.close(force=True)
    path.unlink()
    chat = Chat(own_home.root, "--max-tokens", "2", "--set", "chat.history=false")
    chat.say("forget me")
    assert chat.leave() == 0
    assert not path.exists()


def test_nothing_kept_offers_to_pull(tmp_path: Path) -> None:
    child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], "chat"], env=environment(tmp_path), encoding="utf-8", timeout=PATIENCE_S)
    child.expect("Pull it now .*93 MB\\)\\? \\[y/N\\]")
    child.sendline("n")
    child.expect("ingle pull smollm2")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 3


def test_rm_asks_at_a_terminal(own_home: Home) -> None:
    child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], "rm", "tiny"], env=environment(own_home.root), encoding="utf-8", timeout=PATIENCE_S)
    child.expect_exact("Remove tiny (with its files)? [y/N]")
    child.sendline("")
    child.expect("Nothing was changed")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 1
    assert "tiny" in ingle(own_home.root, "list").stdout


def test_without_a_terminal(smollm2_home: Home, tiny_home: Path) -> None:
    told = ingle(smollm2_home.root, "chat", "--temperature", "0").stdout
    assert told.startswith("› What can I do with a language model at home?")
    assert len(told) > 200
    assert "\x1b" not in told
    two = ingle(tiny_home, "chat", "--max-tokens", "3", given=b"hello\n\nagain\n/stats\n")
    assert "2 answers, 6 tokens" in two.stderr
    assert "context" in ingle(tiny_home, "chat", "--max-tokens", "3", given=b"hi\n" + b"x" * 40_000 + b"\nhi\n", code=2).stderr


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing there")
def test_ctrl_c_ends_a_pipe_of_questions(smollm2_home: Home) -> None:
    command = [*COMMAND, "chat", "--max-tokens", "2000", "--seed", "1"]
    with subprocess.Popen(command, env=environment(smollm2_home.root), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"Tell me a long story.\nAnother.\nAnd another.\n")
        process.stdin.close()
        assert process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(PATIENCE_S) == 130


def test_no_marks_for_a_line_editor_where_the_output_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("builtins.input", lambda sign: shown.append(sign) or "said")
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    lines = TypedLines(None, [])
    assert lines(False) == "said"
    assert shown == ["› "]


def test_saved_conversations_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    talk = TerminalConversation("Be kind.", [Message.of("user", "a\ud83d\ude00"[:1] + "é"), Message.of("assistant", "b")])
    talk.save(path, "tiny")
    assert TerminalConversation.load(path) == talk
    shown = TerminalConversation(
        "", [Message("user", (ImagePart(b"png", "image/png"), TextPart("What is it?"))), Message.of("assistant", "b")]
    )
    shown.save(path, "m")
    assert TerminalConversation.load(path) == shown
    for text, words in (
        ("{", "must be a saved conversation"),
        ('{"x": 1}', "must hold a list"),
        ('[{"role": "robot", "content": "x"}]', "message 1"),
        ('[{"role": "user", "content": 1}]', "message 1"),
        ('[{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]', "one system message"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            TerminalConversation.load(path)
    path.write_text('[{"role": "user", "content": "x"}]')
    assert TerminalConversation.load(path).turns == [Message.of("user", "x")]


@pytest.mark.parametrize("stops", [KeyboardInterrupt(), HomeError("database", "is away"), None])
def test_what_is_not_answered_leaves_the_talk_as_it_was(
    tiny_home: Path, monkeypatch: pytest.MonkeyPatch, stops: BaseException | None
) -> None:
    home = Home(tiny_home)
    kept, settings = get_kept(home, "tiny"), Settings()

    def given(_here: Here, run: AnswerRun, _show: object) -> ShownAnswer:
        if stops is not None:
            raise stops
        run.choice = Choice(run.asked, run.ask.request)
        return ShownAnswer("", "cancelled", None)  # Ctrl-C before the first word

    with closing(Here(House(home), lambda _kept: pytest.fail("no guard model is named"))) as here:
        talk = Talk(here, kept, open_model(kept_source(home, kept), threads=1), settings)
        monkeypatch.setattr("ingle.cli.talk.generate", given)
        said = [Message.of("user", "one"), Message.of("assistant", "two")]
        for move in (lambda: talk.ask("three"), lambda: regenerate(talk, "")):
            talk.conversation.turns = list(said)
            with suppress(KeyboardInterrupt):
                move()
            assert talk.conversation.turns == said
