"""The contract of a tuning method: a file in `methods/` with a `Settings`, and an `attach` that puts trainable parts into a module.

The folder is the registry: a file there is a method, and its first docstring line is its title. Contract tests run over the listing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from ingle.core import registry
from ingle.core.errors import ConfigError
from ingle.model.module import CausalLM

METHODS = "ingle.tuning.methods"


@dataclass(frozen=True, slots=True)
class Attached:
    """A module with trainable parts."""

    # Trainable parameters by their names in the module. All others stay as they are.
    parameters: Mapping[str, nn.Parameter]
    intended: tuple[str, ...]  # the parts of the module that the settings ask for
    touched: tuple[str, ...]  # the parts that got something to train
    collect: Callable[[], Mapping[str, Tensor]]  # returns the delta's tensors as they are now; `engine.changes` explains each kind's
    virtual_tokens: int = 0  # tokens at the beginning of every document, beside its own; see `tuning.virtual`

    @property
    def share(self) -> float:
        """Share of the intended parts that were touched."""
        return len(set(self.touched) & set(self.intended)) / max(1, len(self.intended))


class Method(Protocol):
    """A file of the folder `methods`."""

    KIND: str  # the kind of delta that it makes
    Settings: type[Any]  # a frozen dataclass, every field with a default
    RATE: float  # its own learning rate at the peak, if the settings give none

    def attach(self, module: CausalLM, layers: tuple[int, ...], settings: Any, seed: int) -> Attached:
        """Put trainable parts into these layers of the module, such that the module still computes the same.

        Virtual tokens are the exception: with them, every text has another beginning. The module's weights may be in float32 or bfloat16.
        New parts are float32; the caller brings all to one type (`train` does). `collect` gives float32 whatever that type is; for exact
        values, put the trained float32 values into the parameters first.
        """
        ...


def attached(
    module: nn.Module, intended: tuple[str, ...], parameters: Mapping[str, nn.Parameter], collect: Callable[[], Mapping[str, Tensor]],
    virtual_tokens: int = 0,
) -> Attached:  # fmt: skip
    """Make an `Attached`. A part counts as touched if the module itself, by its own names, holds a trainable parameter of it."""
    own = {name: id(parameter) for name, parameter in module.named_parameters(remove_duplicate=False)}
    held = [name for name, parameter in parameters.items() if own.get(name) == id(parameter)]
    owners = {name[:end] for name in held for end in range(len(name) + 1) if end == len(name) or name[end] == "."}
    return Attached(parameters, intended, tuple(part for part in intended if part in owners), collect, virtual_tokens)


def check_touched(attached: Attached) -> None:
    """Raises ConfigError unless every part that the settings ask for got something to train: no run must do nothing unnoticed."""
    missing = [part for part in attached.intended if part not in attached.touched]
    if missing or not attached.intended:
        count, some = len(attached.intended), ", ".join(missing[:3]) + (", …" if missing[3:] else "")
        got = f"{count - len(missing)}, without {some}" if missing else "none asked for"
        cure = "Is the module of another architecture, or tuned already? Load it anew, and check layers and targets."
        raise ConfigError("method", f"must touch every intended part of the model ({count})", got, cure)


def find_method(name: str) -> Method:
    """Return the method of that name. Raises ConfigError with the known ones."""
    method: Method = registry.find(METHODS, name, "method", "is not known")
    return method
