"""Whatever goes wrong is one line on standard error, with a cure and an exit code, and never a traceback."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from ingle.cli.main import main
from ingle.core.errors import IngleError
from tests.cli.place import COMMAND, CONTEXT, environment, ingle
from tests.waiting import PATIENCE_S

WRONG = [
    (("frob",), 2, "No such command"),
    (("chta",), 2, "chat"),
    (("run", "--frob"), 2, "No such option"),
    (("run", "hi", "tony"), 3, "Did you mean tiny"),
    (("run", "tiny", "hi"), 2, "Swap them: ingle"),
    (("show", "nobody"), 3, "Kept here: tiny"),
    (("rm", "nobody", "--yes"), 3, "Kept here: tiny"),
    (("pull", "smolm"), 5, "Did you mean smollm2"),
    (("pull", "./nowhere"), 5, "There is no file or folder ./nowhere"),
    (("run", ""), 2, "must not be empty"),
    (("run", "   "), 2, "must not be empty"),
    (("run", "hi", "--temperature", "-1"), 2, "temperature must be between"),
    (("run", "hi", "--format", "int3"), 2, "chat.format must be one of auto, int4"),
    (("run", "hi", "--cache", "int4"), 2, "chat.cache must be one of auto, float16"),
    (("run", "hi", "--threads", "0"), 2, "chat.threads"),
    (("run", "hi", "--max-tokens", "0"), 2, "max_tokens"),
    (("run", "hi", "--logprobs", "2"), 2, "needs --json"),
    (("run", "hi", "--stop", ""), 2, "stop must not hold an empty string"),
    (("run", "hi", "--set", "chat.modell=x"), 2, "Did you mean model"),
    (("run", "hi", "--set", "chat"), 2, "key.sub=value"),
    (("run", "hi", "--set", "chat.threads=many"), 2, "chat.threads must be int"),
    (("run", "word " * CONTEXT), 2, f"within the maximum context length of {CONTEXT} tokens"),
    (("verify", "--head", "./nowhere"), 6, "No such file"),
    (("verify", "--accept-loss"), 7, "has lost nothing"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG, ids=[" ".join(case[0])[:40] for case in WRONG])
def test_one_line_with_a_code(
    tiny_home: Path, arguments: tuple[str, ...], code: int, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch, Path(os.devnull).open(encoding="utf-8") as nothing:
        patch.setenv("INGLE_HOME", str(tiny_home))
        patch.setattr("sys.stdin", nothing)
        assert main(arguments) == code
    out, err = capfd.readouterr()
    assert words in err
    assert err.startswith("ingle: ")
    assert err.count("\n") == 1
    assert out == ""


def test_bytes_that_are_not_utf8(tiny_home: Path) -> None:
    said = ingle(tiny_home, "run", given=b"caf\xe9", code=2).stderr
    assert "standard input must be UTF-8: byte 0xe9 at position 3" in said
    assert "must be UTF-8" in ingle(tiny_home, "chat", given=b"caf\xe9\n", code=2).stderr


def test_config_errors_name_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[chat]\nmodle = 'x'\n")
    said = ingle(tmp_path, "run", "hi", code=2).stderr
    assert f"{path}: chat.modle is not a known key. Did you mean model?" in said
    path.write_text("[chat\n")
    assert f"{path} must be valid TOML" in ingle(tmp_path, "run", "hi", code=2).stderr
    path.write_text("[sampling]\ntemperature = 900\n")
    assert "temperature must be between" in ingle(tmp_path, "chat", code=2).stderr


def test_a_home_that_cannot_be(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "file").write_text("")
    said = ingle(tmp_path / "file", "pull", str(tiny_folder), code=6).stderr
    assert "A file lies where a folder should be" in said or "Part of this path is a file" in said
    assert said.splitlines()[-1].startswith("ingle: ")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="an administrator may write anywhere")
def test_a_home_without_permission(tmp_path: Path, tiny_folder: Path) -> None:
    tmp_path.chmod(0o500)
    said = ingle(tmp_path / "home", "pull", str(tiny_folder), code=6).stderr
    tmp_path.chmod(0o700)
    assert "Give yourself write permission" in said


def test_nothing_kept(tmp_path: Path) -> None:
    assert "`ingle pull smollm2` brings a first model" in ingle(tmp_path, "chat", code=3).stderr
    assert "`ingle pull smollm2` brings a first model" in ingle(tmp_path, "list").stderr
    assert "Nothing has been recorded" in ingle(tmp_path, "log").stderr


def test_a_bug_is_one_line_too(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("ingle.home.kept.list_kept", fail)
    monkeypatch.delenv("INGLE_DEBUG", raising=False)
    assert main(["list"]) == 70
    said = capfd.readouterr().err
    assert "RuntimeError" in said
    assert "INGLE_DEBUG=1" in said
    assert "Traceback" not in said
    monkeypatch.setenv("INGLE_DEBUG", "1")
    assert main(["list"]) == 70
    assert "Traceback" in capfd.readouterr().err


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    assert "Traceback" not in ingle(tmp_path, "show", "x", code=3).stderr
    assert "Traceback" in ingle(tmp_path, "show", "x", code=3, changes={"INGLE_DEBUG": "1"}).stderr


def test_errors_hold_no_commands_for_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    from ingle.cli.output import complain

    complain(IngleError("file \x1b[2J", "is\nbad", "\x07\x9b"))
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert not set(said) & {"\x1b", "\x07", "\x9b"}


def test_a_reader_that_leaves_is_no_news(tiny_home: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "run", "hi"], env=environment(tiny_home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_help_whose_reader_leaves_is_no_news(tiny_home: Path) -> None:
    with subprocess.Popen([*COMMAND, "--help"], env=environment(tiny_home), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_ctrl_c_while_it_waits_for_input(tiny_home: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "run"], env=environment(tiny_home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "Waiting for standard input" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        assert process.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_the_output(tiny_home: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "list"], env=environment(tiny_home), stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 6
    assert done.stderr == b"ingle: input or output failed (No space left on device)\n"


@pytest.mark.skipif(os.name == "nt", reason="arguments are Unicode there")
def test_an_old_locale_and_no_output_at_all(tiny_home: Path) -> None:
    env = environment(tiny_home, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    program = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "run", "grüße".encode(), "--max-tokens", "2"]
    done = subprocess.run(program, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
