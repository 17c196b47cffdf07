"""Layers and linears by the words that people name them with. Imports no PyTorch."""

from collections.abc import Iterable

from ingle.core.errors import ConfigError
from ingle.core.spec import ModelConfig
from ingle.engine.adapter import LINEARS, linear_shapes

# Short words for linears of a layer; single linears are named as in `q_proj,v_proj`.
TARGETS = {"all": LINEARS, "attention": LINEARS[:4], "mlp": LINEARS[4:]}


def chosen_layers(config: ModelConfig, text: str) -> tuple[int, ...]:
    """Return the layers that a text names: `all`, `upper-third`, `upper-half`, or numbers: `20-29`, `0,5,10-12`.

    Raises ConfigError for anything else, or layers that aren't there.
    """
    count = len(config.layers)
    words = {"all": 0, "upper-third": count - max(1, count // 3), "upper-half": count - max(1, count // 2)}
    if text in words:
        return tuple(range(words[text], count))
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            raise ConfigError("layers", "must be all, upper-third, upper-half, or numbers like 20-29", text)
        numbers.update(range(int(first), int(last or first) + 1))
    if not numbers or max(numbers) >= count:
        raise ConfigError("layers", f"must be between 0 and {count - 1}", text)
    return tuple(sorted(numbers))


def chosen_linears(config: ModelConfig, layers: tuple[int, ...], targets: str) -> tuple[str, ...]:
    """Return the linears of these layers that `targets` names: `all`, `attention`, `mlp`, or single ones.

    Those that a layer doesn't have, because another mixer or experts stand there, are left out. Raises ConfigError for other words, and
    where none of the layers has any.
    """
    chosen: list[str] = []
    for word in targets.split(","):
        word = word.strip()
        matching = TARGETS.get(word) or tuple(name for name in LINEARS if name in (word, f"self_attn.{word}", f"mlp.{word}"))
        if not matching:
            known = ", ".join(name.split(".")[1] for name in LINEARS)
            raise ConfigError("targets", f"must be all, attention, mlp, or some of {known}", word)
        chosen += [name for name in matching if name not in chosen]
    return there(config, (f"model.layers.{layer}.{name}" for layer in layers for name in LINEARS if name in chosen), targets)


def there(config: ModelConfig, names: Iterable[str], targets: str) -> tuple[str, ...]:
    """Return the linears that the model has. Raises ConfigError if that is none; `targets` is for the message."""
    found = tuple(name for name in names if name in linear_shapes(config))
    if not found:
        cure = "Choose other layers, or attention where it has experts, or mlp where it has other mixers."
        raise ConfigError("targets", f"must be linears that the chosen layers of {config.family} have", targets, cure)
    return found
