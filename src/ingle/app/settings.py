"""Reads `config.toml` of the home, section by section, and the options that override it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingle.core.config import Count, check_bounds, from_table, load_config, read_table
from ingle.core.errors import ConfigError
from ingle.core.message import Sampling
from ingle.core.process import memory_bytes, usable_cores
from ingle.engine.job import Capacity
from ingle.home.place import Home
from ingle.learn.learning_settings import LearnSettings
from ingle.scaling.budget import Prices

# Sections `[serve]` and `[sampling]` of `config.toml`.


_PENALTY, _REPEAT_LIMIT = 1.1, 160
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Section `[sampling]`. Fields mean the same as in `core.message.Sampling`; `bench/circles.py` chose the defaults."""

    temperature: float = 0.3
    top_p: float = 0.9
    top_k: int = 40
    min_p: float = 0.0
    repetition_penalty: float | None = None  # none = 1.1 where tokens are drawn, and none at temperature 0, which stays exact
    repetition_window: int = 128
    repeat_limit: int | None = None  # none = 160 tokens where tokens are drawn, and never at temperature 0
    seed: int | None = None

    def __post_init__(self) -> None:
        self.sampling(0)  # refuses values out of range

    def sampling(self, seed: int, temperature: float | None = None) -> Sampling:
        """Return the sampling of one answer. `seed` is used if the settings name none, `temperature` if it is not None."""
        temperature = self.temperature if temperature is None else temperature
        penalty, limit = (_PENALTY, _REPEAT_LIMIT) if temperature else (1.0, 0)
        return Sampling(
            repetition_penalty=penalty if self.repetition_penalty is None else self.repetition_penalty,
            repetition_window=self.repetition_window, temperature=temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p,
            seed=seed if self.seed is None else self.seed, repeat_limit=limit if self.repeat_limit is None else self.repeat_limit,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Section `[serve]`: address, access and limits of the server."""

    # Address to listen on. Anything but loopback needs a key (`ingle home keys add`).
    host: str = "127.0.0.1"
    # 0 = any free one. (I-N-G-L on a telephone.)
    port: int = 4645
    small: bool = False  # whether other defaults hold, for a machine with little memory: `small_defaults` in app/settings.py
    page: bool = True  # whether the page is served beside the API
    require_key: bool = False  # whether a key is needed on loopback too
    # Names by which clients may call this server, beside its address; other Host headers are refused. With one, a key is needed.
    hosts: tuple[str, ...] = ()
    # Limit per key, unless the key has its own; 0 = no limit. Requests without a key are not counted.
    requests_per_minute: int = 600
    body_bytes: int = 8 << 20  # largest body of a request
    places: int = 32  # answers written at once
    # Answers that may wait for a place; beyond that, requests get 429. Every answer waits at least a moment.
    queue: int = 64
    # Memory for the states of running answers and earlier prompts; none = a quarter of the machine's or container's up to 512 MB, beyond
    # that a sixteenth, 1 GB at most.
    state_mb: int | None = None
    # Time after which the states of earlier prompts leave memory if nobody asks for them. Those of kept conversations are saved.
    keep_states_s: float = 300.0
    max_tokens: int = 1024  # longest answer, in tokens, if a request names no limit: small models sometimes repeat themselves for ever
    # Whether several tokens may be written in a step where that is faster; the tokens are the same. `run` and `chat` heed it too.
    drafts: bool = True
    deadline_s: float = 600.0  # longest time for one answer, waiting included
    grace_s: float = 10.0  # time that running answers have to finish when the server is told to stop
    save_states: bool = True  # whether the states of stored conversations are saved, so that they go on at once after a restart
    saved_mb: int = 2048  # disk space for saved states

    def __post_init__(self) -> None:
        limits = {
            "port": (0, 65535), "requests_per_minute": (0, 10**6), "body_bytes": (1024, 1 << 30), "places": (1, 1024), "queue": (1, 10**5),
            "max_tokens": (1, 10**7),
            "deadline_s": (0.1, 86400.0), "grace_s": (0.0, 3600.0), "saved_mb": (0, 10**6), "keep_states_s": (0.0, 10**6),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"serve.{name}", f"must be between {low} and {high}", getattr(self, name))
        if self.state_mb is not None and self.state_mb < 16:
            raise ConfigError("serve.state_mb", "must be at least 16", self.state_mb)

    @property
    def exposed(self) -> bool:
        """Whether other machines can reach the address."""
        return self.host not in LOOPBACK

    @property
    def needs_key(self) -> bool:
        """Whether every request needs a key. A name of its own (`hosts`) needs one too: others may come through a proxy."""
        return self.exposed or self.require_key or bool(self.hosts)

    def capacity(self) -> Capacity:
        """Return the scheduler's settings."""
        places, queue = (self.places, max(1, self.places * 3 // 4)), (self.queue, max(1, self.queue * 3 // 4))
        return Capacity(*places, *queue, self.state_bytes, drafts=self.drafts, keep_s=self.keep_states_s)

    @property
    def state_bytes(self) -> int:
        """Memory for states: what is set, or a share of what this process may use."""
        memory_mb = memory_bytes() >> 20
        return (self.state_mb or max(32, min(memory_mb // 4, max(512, memory_mb // 16), 1024))) << 20


# Reads `config.toml` of the home and the options that override it.


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """Section `[chat]`, which `ingle "…"` uses too."""

    model: str = ""  # name of a kept model; empty = smollm2, or the only one
    format: str = "auto"  # format of the weights: auto, int4, int8, bf16, fp32
    cache: str = "auto"  # format of keys and values: auto (float16; float32 with the format fp32), float16, float32, int8 (half the bytes)
    threads: int | None = None  # number of threads; none = one per usable core
    system: str = ""  # system prompt; empty = the default of the model's template
    # Longest answer, in tokens: small models sometimes repeat themselves for ever, so the context is too long a limit.
    max_tokens: Count = 1024
    history: bool = True  # whether typed lines are kept in the home as a history
    markdown: bool = True  # whether answers are shown as Markdown
    keep: bool = True  # whether the last question of `ingle "…"` and its answer are kept until the next one, for `ingle why --last`
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
