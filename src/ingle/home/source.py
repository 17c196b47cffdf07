"""Sources of `ingle pull`, and the files that a model needs."""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ingle.core.errors import PullError
from ingle.home.catalogue import CATALOGUE, ON_HUB, SETS, Archived, close_names, close_parts, known_names

INDEX = "model.safetensors.index.json"
COMPANIONS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "preprocessor_config.json",
    "processor_config.json",
)  # fmt: skip
_HUB = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(?P<file>[^@]+\.gguf))?(?:@(?P<revision>[\w./-]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of the model hub, or one GGUF file of it."""

    repo: str  # `org/name`
    file: str = ""  # path of the GGUF file within it; empty = the repository's weights
    revision: str = ""  # branch, tag or commit; empty = the main branch at the first pull, and that commit ever after

    @property
    def id(self) -> str:
        """The source as a base records it."""
        return f"hub:{self.repo}/{self.file}" if self.file else f"hub:{self.repo}"


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A folder or a GGUF file of this machine."""

    path: Path  # absolute

    @property
    def id(self) -> str:
        """The source as a base records it."""
        return f"file:{self.path}"


Source = Archived | HubSource | LocalSource


def source_id(source: Source) -> str:
    """Return the source as a base records it."""
    return f"catalogue:{source.name}" if isinstance(source, Archived) else source.id


def find_source(what: str) -> Source:
    """Find a name of the catalogue, an existing folder or .gguf file, or `org/name[/file.gguf][@revision]` of the hub, in this order.

    Raises PullError for anything else.
    """
    if what in CATALOGUE:
        return CATALOGUE[what]
    if what in ON_HUB:
        return HubSource(ON_HUB[what].repo, ON_HUB[what].file)
    path = Path(what).expanduser() if what else Path()
    if what and path.is_dir():
        return LocalSource(path.resolve())
    if what and path.is_file():
        if path.suffix.lower() != ".gguf":
            raise PullError(what, "must be a .gguf file or a folder", "", "For safetensors, name the folder with its config.json.")
        return LocalSource(path.resolve())
    is_path = path.is_absolute() or what.startswith((".", "~"))
    if is_path or ("/" not in what and what.lower().endswith((".gguf", ".safetensors"))):
        raise PullError(what, f"There is no file or folder {what}", "", "Check the path.")
    if match := _HUB.fullmatch(what):
        return HubSource(match["repo"], match["file"] or "", match["revision"] or "")
    close = [*close_names(what), *close_parts(what)]
    cure = f"Did you mean {' or '.join(close)}? `ingle pull` lists all known models. " if close else ""
    cure = cure or f"Known names: {', '.join([*known_names(), *SETS])}; `ingle pull` says more of them. "
    cure += "Else give org/name of the hub, a folder, or a .gguf file."
    raise PullError(what or "''", "is not a known model", "", cure)


def default_name(source: Source) -> str:
    """Return the name of a model whose user gives none."""
    if isinstance(source, Archived):
        return source.name
    if isinstance(source, HubSource):
        text = Path(source.file).stem if source.file else source.repo.partition("/")[2]
    else:
        text = source.path.stem if source.path.suffix.lower() == ".gguf" else source.path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:100] or "model"


def choose_files(where: str, names: Collection[str], read_index: Callable[[], bytes]) -> list[str]:
    """Return the files that a model needs, of those in a folder or repository; one kind of weights only.

    `where` is for messages; `read_index` gives the contents of model.safetensors.index.json if it is among `names`.
    Raises PullError if there are no weights that we read, several GGUF files to choose from, or a shard is missing.
    """
    tensors = sorted(name for name in names if name.endswith(".safetensors"))
    ggufs = sorted(name for name in names if name.lower().endswith(".gguf"))
    if INDEX in names:
        weights = [INDEX, *_shards(where, names, read_index())]
    elif "model.safetensors" in tensors:
        weights = ["model.safetensors"]  # some repositories hold the same weights a second time, under other names
    else:
        weights = tensors
    if weights:
        if "config.json" not in names:
            raise PullError(where, "must hold a config.json beside its safetensors", ", ".join(tensors), "Is it an adapter?")
        return [name for name in COMPANIONS if name in names] + weights
    if len(ggufs) == 1:
        return ggufs
    if ggufs:
        cure = f"Name one of them: `ingle pull {where}/{ggufs[0]}`."
        raise PullError(where, "holds several GGUF files, of which one can be pulled", ", ".join(ggufs), cure)
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth")))
    cure = "Files like these run code when they are read, so Ingle never opens them; look for a safetensors version." if pickles else ""
    raise PullError(where, "must hold safetensors or GGUF weights", ", ".join(pickles) or "neither", cure)


def _shards(where: str, names: Collection[str], index: bytes) -> list[str]:
    try:
        shards = sorted({str(name) for name in json.loads(index)["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PullError(f"{where}/{INDEX}", "must list the shards of the model", error, "The file is damaged; get it again.") from error
    missing = [name for name in shards if name not in names]
    if missing:
        raise PullError(where, f"must hold every shard that {INDEX} names", f"no {', '.join(missing)}", "Get the missing files first.")
    return shards
