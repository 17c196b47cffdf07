"""Reads `config.toml` of the home and the options that override it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingle.core.config import Count, check_bounds, from_table, load_config, read_table
from ingle.core.errors import ConfigError
from ingle.core.process import usable_cores
from ingle.home.place import Home
from ingle.learn.learning_settings import LearnSettings
from ingle.scaling.budget import Prices
from ingle.serve.settings import SamplingSettings, ServeSettings


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """Section `[chat]`, which `ingle run` uses too."""

    model: str = ""  # name of a kept model; empty = smollm2, or the only one
    format: str = "auto"  # format of the weights: auto, int4, int8, bf16, fp32
    cache: str = "auto"  # format of keys and values: auto (float16; float32 with the format fp32), float16, float32, int8 (half the bytes)
    threads: int | None = None  # number of threads; none = one per usable core
    system: str = ""  # system prompt; empty = the default of the model's template
    # Longest answer, in tokens: small models sometimes repeat themselves for ever, so the context is too long a limit.
    max_tokens: Count = 1024
    history: bool = True  # whether typed lines are kept in the home as a history
    markdown: bool = True  # whether answers are shown as Markdown
    keep: bool = True  # whether the last question of `ingle run` and its answer are kept until the next one, for `ingle why --last`
    think: bool = False  # whether a model that can think aloud does so before it answers
    # Whether memories may be placed in the prompt. Lessons in the weights act in any case.
    memory: bool = True

    def __post_init__(self) -> None:
        formats = ("auto", "int4", "int8", "bf16", "fp32")
        if self.format not in formats:
            raise ConfigError("chat.format", f"must be one of {', '.join(formats)}", self.format)
        caches = ("auto", "float16", "float32", "int8")
        if self.cache not in caches:
            raise ConfigError("chat.cache", f"must be one of {', '.join(caches)}", self.cache)
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise ConfigError("chat.threads", "must be between 1 and 1024", self.threads)
        check_bounds(self, "chat.")


@dataclass(frozen=True, slots=True)
class PullSettings:
    """Section `[pull]`."""

    lean: bool = False  # whether a pulled GGUF file lies on the disk once, as it is served (engine/lean_base.py)


@dataclass(frozen=True, slots=True)
class Settings:
    """All of `config.toml`."""

    chat: ChatSettings = field(default_factory=ChatSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)
    pull: PullSettings = field(default_factory=PullSettings)
    costs: Prices = field(default_factory=Prices)
    learn: LearnSettings = field(default_factory=LearnSettings)


def read_settings(home: Home, overrides: Sequence[str] = (), options: Mapping[str, object] | None = None) -> Settings:
    """Return the home's settings, overridden by `--set key=value`, and these by the options that are not None.

    `options` is by `section.key`. Raises ConfigError that names the file and the key.
    """
    return from_table(Settings, _read(home, overrides, options or {}))


def serve_settings(home: Home, overrides: Sequence[str] = (), options: Mapping[str, object] | None = None) -> Settings:
    """Return the settings of `ingle serve`: as `read_settings` does, but where `serve.small` holds, `small_defaults` are the defaults.

    Raises ConfigError that names the file and the key.
    """
    table = _read(home, overrides, options or {})
    settings = from_table(Settings, table)
    return from_table(Settings, _over(small_defaults(), table)) if settings.serve.small else settings


def small_defaults() -> dict[str, dict[str, Any]]:
    """Return the defaults of a server on a small machine, by section. What the owner names himself holds all the same."""
    return {
        "chat": {"cache": "int8", "threads": min(2, usable_cores())},
        "serve": {"page": False, "places": 4, "queue": 16, "state_mb": 64},
        "learn": {"worker": False},
    }


def _read(home: Home, overrides: Sequence[str], options: Mapping[str, object]) -> dict[str, Any]:
    """Return what the file, `--set` and the options say, by section. Raises ConfigError for whatever no `Settings` may hold."""
    path: Path | None = home.config
    if path is None or not path.is_file():
        path = None
    try:
        load_config(Settings, path)
    except ConfigError as error:
        where = str(path) if str(path) in error.field else f"{path}: {error.field}"
        raise ConfigError(where, error.rule, error.got, error.cure) from error
    table = read_table(path, overrides)
    from_table(Settings, table)
    for name, value in options.items():
        if value is not None:
            section, _, key = name.partition(".")
            table.setdefault(section, {})[key] = value
    return table


def _over(defaults: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Return `table` with `defaults` where it says nothing."""
    filled = {key: _over(value, table.get(key, {})) if isinstance(value, Mapping) else value for key, value in defaults.items()}
    return {**filled, **{key: value for key, value in table.items() if not isinstance(defaults.get(key), Mapping)}}
