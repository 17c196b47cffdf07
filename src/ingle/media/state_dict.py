"""Tensors of a PyTorch file (`torch.save` of a state dict, its older format), read without unpickling.

Such a file is five pickles on end (a magic number, the version, the writer's type sizes, the dict, the keys of its storages), and the
storages themselves. A pickle is a program, and running one may do anything. Here only the words of its language that a dict of
tensors needs are understood (`pickletools` splits it into words and runs nothing), and only four names, none of which is ever imported
or called. Everything else is refused.
"""

import math
import mmap
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from ingle.core.errors import CheckpointError
from ingle.core.files import os_errors

Array = npt.NDArray[Any]
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
MOST_TENSORS = 100_000
_DICT, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_TYPES: Mapping[str, Any] = {"torch FloatStorage": np.float32, "torch LongStorage": np.int64}


@dataclass(frozen=True, slots=True)
class _Global:
    """A name that a pickle mentions; it stands for nothing but itself."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """Numbers that follow in the file."""

    key: str
    dtype: Any
    size: int


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: which of a storage's numbers it holds."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mark:
    """The mark on the stack that some words count from."""


def read_state_dict(path: Path) -> dict[str, Array]:
    """Return the tensors by name. Raises CheckpointError for a file that is no such dict, or that says anything else; HomeError."""
    with os_errors(path), path.open("rb") as opened:
        try:
            # Mapped: a read gives what there is and reserves no more, whatever length the file claims.
            file = cast("BinaryIO", mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
            for expected in (MAGIC, VERSION):
                if _value(file) != expected:
                    raise _bad("must begin as torch.save's older format does")
            sizes, views, keys = _value(file), _value(file), _value(file)
            if not (isinstance(sizes, dict) and sizes.get("little_endian") is True and isinstance(views, dict) and isinstance(keys, list)):
                raise _bad("must hold a dict of little-endian tensors")
            storages = {view.storage.key: view.storage for view in views.values() if isinstance(view, _View)}
            if len(storages) > MOST_TENSORS or sorted(map(str, keys)) != sorted(storages) or not all(map(_named, views.items())):
                raise _bad("must hold tensors by name, and nothing else")
            held = {key: _numbers(file, storages[key]) for key in keys}
        except CheckpointError as error:
            raise CheckpointError(str(path), error.rule, error.got, "It may be damaged; fetch it again.") from error
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CheckpointError(str(path), "is no whole state dict", error, "It may be damaged; fetch it again.") from error
    return {name: _tensor(view, held[view.storage.key]) for name, view in views.items()}


def _bad(rule: str, got: object = "") -> CheckpointError:
    return CheckpointError("state dict", rule, got)


def _named(entry: tuple[object, object]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], _View)


def _numbers(file: BinaryIO, storage: _Storage) -> Array:
    """Read a storage: its size as int64, and its numbers."""
    size = int.from_bytes(file.read(8), "little")
    if size != storage.size:
        raise _bad("must hold as many numbers as it says", size)
    data = file.read(size * np.dtype(storage.dtype).itemsize)
    return np.frombuffer(data, np.dtype(storage.dtype).newbyteorder("<"), size)


def _tensor(view: _View, numbers: Array) -> Array:
    strides = tuple(stride * numbers.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(numbers[view.offset :], view.shape, strides, writeable=False).copy()


def _value(file: BinaryIO) -> Any:
    """Read the next pickle of the file, as far as it speaks of plain values and tensors."""
    stack, memo = list[Any](), dict[Any, Any]()
    for word, argument, _ in pickletools.genops(file):
        if word.name == "PROTO":
            continue
        if word.name == "STOP":
            (value,) = stack
            return value
        if word.name in _PLAIN:
            stack.append(argument)
        elif word.name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif word.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif word.name in _CONSTANTS:
            stack.append(_CONSTANTS[word.name]())
        elif word.name == "GLOBAL" and argument in (_DICT, _TENSOR, *_TYPES):
            stack.append(_Global(argument))
        elif word.name in _ACTS:
            _ACTS[word.name](stack)
        else:
            raise _bad("must hold tensors alone; it asks for more", f"{word.name} {argument if word.name == 'GLOBAL' else ''}".strip())
    raise _bad("must not end in the middle")


def _since_mark(stack: list[Any]) -> list[Any]:
    at = max(i for i, value in enumerate(stack) if isinstance(value, _Mark))
    values = stack[at + 1 :]
    del stack[at:]
    return values


def _tuple_of(count: int) -> Callable[[list[Any]], None]:
    def act(stack: list[Any]) -> None:
        values = tuple(stack[-count:])
        if len(values) < count:
            raise _bad("must not end in the middle")
        del stack[-count:]
        stack.append(values)

    return act


def _set_items(stack: list[Any], values: list[Any]) -> None:
    target = stack[-1]
    if not isinstance(target, dict) or len(values) % 2:
        raise _bad("must hold tensors alone; it asks for more", "SETITEMS")
    target.update(zip(values[::2], values[1::2], strict=True))


def _append(stack: list[Any]) -> None:
    values = _since_mark(stack)
    if not isinstance(stack[-1], list):
        raise _bad("must hold tensors alone; it asks for more", "APPENDS")
    stack[-1].extend(values)


def _storage(stack: list[Any]) -> None:
    kind, of, key, place, size, view = stack.pop()
    if (kind, place, view) != ("storage", "cpu", None) or not isinstance(of, _Global) or of.name not in _TYPES:
        raise _bad("must keep its numbers in storages of float32 or int64", of)
    if not isinstance(key, str) or not _whole(size):
        raise _bad("must keep its numbers in named storages", key)
    stack.append(_Storage(key, _TYPES[of.name], size))


def _call(stack: list[Any]) -> None:
    """Understand a call of one of the two known functions; nothing is called."""
    arguments, of = stack.pop(), stack.pop()
    if of == _Global(_DICT) and arguments == ():
        stack.append({})
    elif of == _Global(_TENSOR):
        storage, offset, shape, strides, gradient, hooks = arguments
        if not isinstance(storage, _Storage) or not all(map(_whole, (offset, *shape, *strides))) or gradient is not False or hooks != {}:
            raise _bad("must hold plain tensors", shape)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if math.prod(shape) + offset > storage.size or last >= max(storage.size, 1):
            raise _bad("must hold tensors whose numbers lie within their storage", shape)
        stack.append(_View(storage, offset, shape, strides))
    else:
        raise _bad("must hold tensors alone; it asks for more", of)


def _whole(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 40


def _ignore_attributes(stack: list[Any]) -> None:
    """Drop what a dict is given beside its items: the versions of PyTorch's modules."""
    stack.pop()
    if not isinstance(stack[-1], dict):
        raise _bad("must hold tensors alone; it asks for more", "BUILD")


_PLAIN = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "MARK": _Mark, "NONE": lambda: None, "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}  # fmt: skip
_ACTS: Mapping[str, Callable[[list[Any]], None]] = {
    "TUPLE": lambda stack: stack.append(tuple(_since_mark(stack))),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "SETITEMS": lambda stack: _set_items(stack, _since_mark(stack)),
    "SETITEM": lambda stack: _set_items(stack, [stack.pop(-2), stack.pop()]),
    "APPENDS": _append,
    "BINPERSID": _storage,
    "REDUCE": _call,
    "BUILD": _ignore_attributes,
}
