"""Changes one value of a TOML file that its owner writes by hand: every comment, blank line and other word stays."""

import tomllib
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingle.core.errors import ConfigError
from ingle.core.files import os_errors, write_atomic


def with_value(old: bytes, keys: Sequence[str], value: str, name: str) -> bytes:
    """Return a file's content with a value under these keys, of tables within tables. `name`: the file's, for the error.

    Raises ConfigError for a content that can't be read, and if more than that value would change.
    """
    import tomlkit

    try:
        text = old.decode("utf-8")
        document, wanted = tomlkit.parse(text), tomllib.loads(text)
        if keys[0] not in document and len(keys) > 1:
            document[keys[0]] = tomlkit.table()
        for table in (document, wanted):
            _set(table, keys, value)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(name, "can't be read", error, "Mend it, or move it away.") from error
    new = tomlkit.dumps(document)
    if "\r\n" in text and "\n" not in text.replace("\r\n", ""):
        new = new.replace("\r\n", "\n").replace("\n", "\r\n")
    try:
        read = tomllib.loads(new)
    except tomllib.TOMLDecodeError:
        read = {}
    if read != wanted:
        cure = f'Write [{".".join(keys[:-1])}] {keys[-1]} = "{value}" into it yourself.'
        raise ConfigError(name, "can't be changed without changing more than this", keys[-1], cure)
    return new.encode()


@contextmanager
def rewritten(path: Path, old: bytes | None, new: bytes) -> Iterator[None]:
    """Put a new content into a file, and the old one back if the block fails. `old`: None where there was no file."""
    with os_errors(path):
        mode = 0o600 if old is None else path.stat().st_mode & 0o777
    write_atomic(path, new, mode)
    try:
        yield
    except BaseException:
        if old is None:
            path.unlink(missing_ok=True)
        else:
            write_atomic(path, old, mode)
        raise


def read_bytes(path: Path) -> bytes | None:
    """Return a file's content; None where there is no file. Raises HomeError."""
    with os_errors(path):
        return path.read_bytes() if path.exists() else None


def _set(table: MutableMapping[str, Any], keys: Sequence[str], value: str) -> None:
    for key in keys[:-1]:
        table = table.setdefault(key, {})
    table[keys[-1]] = value
