"""One value of a file that its owner writes by hand: it changes, and nothing else does."""

import tomllib
from pathlib import Path

import pytest

from ingle.core.errors import ConfigError
from ingle.home.toml_file import read_bytes, rewritten, with_value

OWN = '# mine\n[chat]\nmodel = "smollm2"  # the quick one\nthreads = 2\n\n[costs]\nkwh = 0.4 # dear\n'


def test_every_other_word_stays() -> None:
    assert with_value(OWN.encode(), ("chat", "model"), "other", "config.toml").decode() == OWN.replace('"smollm2"', '"other"')
    windows = OWN.replace("\n", "\r\n")
    assert with_value(windows.encode(), ("chat", "model"), "other", "config.toml").decode() == windows.replace('"smollm2"', '"other"')
    assert tomllib.loads(with_value(b"", ("chat", "model"), "other", "config.toml").decode()) == {"chat": {"model": "other"}}


@pytest.mark.parametrize("content", [b"[chat", b"chat = 3\n", b"\xff\xfe", b'chat = "x"\n', b"[[chat]]\na = 1\n"])
def test_a_file_that_says_something_else_is_left_alone(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"config\.toml"):
        with_value(content, ("chat", "model"), "other", "config.toml")


@pytest.mark.parametrize("old", [None, b"a = 1\n"])
def test_what_fails_leaves_the_old_content(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "config.toml"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(KeyError), rewritten(path, old, b"a = 2\n"):
        assert path.read_bytes() == b"a = 2\n"
        raise KeyError
    assert read_bytes(path) == old
