"""PEFT folders (adapter_config.json and adapter_model.safetensors), read and written. NumPy only.

LoRA with its relatives rsLoRA, DoRA and converted PiSSA, IA³, prefix and prompt tuning, on the linears of the layers. PEFT's own rules are
followed to the letter: how targets match modules, which pattern gives a module its rank or alpha, what a scale is. Where PEFT only warns,
an error is raised here: an adapter that reaches less of the model than it says would be wrong without anybody noticing.
Source: peft 0.21, `tuners/tuners_utils.py` and `utils/other.py`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingle import __version__
from ingle.core.candidate import Admit, Candidate
from ingle.core.delta import Delta
from ingle.core.digest import digest_file
from ingle.core.errors import CheckpointError, ConfigError, DeltaError
from ingle.core.files import write_atomic
from ingle.core.report import Event, Fact, Sink
from ingle.core.spec import ModelConfig
from ingle.engine.adapter import linear_shapes
from ingle.engine.delta_kinds import Change, linears_of, parted, virtual_of
from ingle.engine.packs import open_weights
from ingle.home.deltas import get_delta
from ingle.home.kept import Kept
from ingle.home.names import check_name
from ingle.home.place import Home
from ingle.model.checkpoint import Checkpoint, read_safetensors
from ingle.model.family import families
from ingle.model.fields import Fields, read_json
from ingle.train.making import DeltaJob, MadeDelta, RunWatch, delta_job, make_delta

Array = npt.NDArray[Any]
CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
_TYPES = ("LORA", "IA3", "PREFIX_TUNING", "PROMPT_TUNING")
_OTHER_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # these initialisations change the base's weights
# Settings with which a LoRA's tensors mean something else than W + scale · B A.
_UNSUPPORTED = (
    "fan_in_fan_out", "modules_to_save", "layer_replication", "trainable_token_indices", "alora_invocation_tokens", "use_qalora",
    "lora_bias", "target_parameters", "use_bdlora", "arrow_config", "kasa_config", "monteclora_config",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Folder:
    """Content of a folder, not yet checked."""

    path: Path
    settings: Fields
    tensors: Mapping[str, Array]  # float32 tensors by name, without PEFT's common prefix
    config: ModelConfig
    shapes: Mapping[str, tuple[int, int]]  # shapes of the model's linears


def check_exchange(config: ModelConfig) -> None:
    """Raise DeltaError for a family whose linears Hugging Face has in one piece, under other names, or with rows in another order: an
    adapter of the one fits none of the other."""
    family = families()[config.family]
    others = [*family.fused, *family.renamed.values()] or ["rows in another order"] * bool(config.ways.turned)
    if others:
        cure = "Merge it with PEFT and pull that; or export the whole model instead (--format hf)."
        what = " and ".join(others[:2])
        raise DeltaError("adapter", f"can't be exchanged with PEFT for {config.family}, which has {what} there", "", cure)


def read_peft(folder: Path, config: ModelConfig) -> tuple[str, dict[str, Array]]:
    """Read the delta that a PEFT folder is on a model of this config: (kind, tensors in float32).

    A prompt has its embeddings only: `tuning.virtual.prompt_tensors` computes the rest, which takes the model itself, and PyTorch.
    Raises CheckpointError for files that are missing, damaged or pickled; DeltaError for a type that is unknown or a feature that can't be
    kept, targets that match nothing in the model or have no tensors, and tensors that are too many, of wrong shapes, or not finite.
    """
    check_exchange(config)
    if not (folder / CONFIG).is_file():
        cure = f"Name a folder that PEFT's save_pretrained has written: {CONFIG} and {WEIGHTS}."
        raise CheckpointError(str(folder), f"must hold {CONFIG}", "nothing of that name", cure)
    settings = Fields(read_json(folder / CONFIG), str(folder / CONFIG))
    kind = settings.text("peft_type")
    if kind not in _TYPES:
        raise DeltaError(f"{folder / CONFIG}: peft_type", f"must be one of {', '.join(_TYPES)}", kind, "Merge it with PEFT and pull that.")
    opened = _Folder(folder, settings, _tensors(folder), config, linear_shapes(config))
    if kind in ("PREFIX_TUNING", "PROMPT_TUNING"):
        return _virtual(opened, "prefix" if kind == "PREFIX_TUNING" else "prompt")
    return _low_rank(opened) if kind == "LORA" else _ia3(opened)


def write_peft(folder: Path, kind: str, tensors: Mapping[str, Array], base_name: str) -> None:
    """Write a delta as a folder that PEFT loads on the original model; `base_name` is that model's name or folder, for PEFT to find it.

    A LoRA's alpha is its rank, so that the scale is 1; a delta has it within B. Raises ConfigError for a kind that PEFT doesn't have,
    HomeError where the folder can't be written.
    """
    makers = {"lora": _lora_table, "dora": _lora_table, "ia3": _ia3_table, "prefix": _virtual_table, "prompt": _virtual_table}
    if kind not in makers:
        cure = "Export the whole model instead (--format hf)." if kind in ("bias", "full") else "Only Ingle serves it."
        raise ConfigError("format", f"The PEFT library has no file for the kind {kind}", "", cure)
    table, stored = makers[kind](tensors)
    common = {"task_type": "CAUSAL_LM", "base_model_name_or_path": base_name, "inference_mode": True, "revision": None}
    from safetensors.numpy import save

    whole = {name: np.ascontiguousarray(value, np.float32) for name, value in stored.items()}
    write_atomic(folder / WEIGHTS, save(whole, {"format": "pt"}))
    write_atomic(folder / CONFIG, (json.dumps(common | table, indent=2, sort_keys=True) + "\n").encode())


def _tensors(folder: Path) -> dict[str, Array]:
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / PICKLE).is_file()
        cure = "Pickles are never loaded, because they can run programs: save it with safe_serialization=True." if pickled else ""
        raise CheckpointError(str(folder), f"must hold {WEIGHTS}", PICKLE if pickled else "nothing of that name", cure)
    tensors = {}
    for tensor in read_safetensors(path):
        name = tensor.name.removeprefix(_PREFIX)
        if name in tensors:
            raise CheckpointError(f"{path}: {tensor.name}", "must not be there twice, with and without PEFT's prefix")
        tensors[name] = tensor.to_float32()
        if not np.isfinite(tensors[name]).all():
            raise DeltaError(f"{path}: {tensor.name}", "must hold finite numbers", "NaN or infinity", "Its training failed; make it anew.")
    if not tensors:
        raise DeltaError(str(path), "must hold at least one tensor", "none")
    return tensors


def _low_rank(opened: _Folder) -> tuple[str, dict[str, Array]]:
    settings, where = opened.settings, f"{opened.path / CONFIG}"
    for feature in _UNSUPPORTED:
        if settings.table.get(feature):
            raise DeltaError(
                f"{where}: {feature}", "is not supported", repr(settings.table[feature])[:80], "Merge it with PEFT and pull that."
            )
    if settings.text("bias", "none") != "none":
        raise DeltaError(f"{where}: bias", "must be none", settings.text("bias"), "Merge it with PEFT and pull that.")
    begin = str(settings.table.get("init_lora_weights", True)).lower()
    if begin.startswith(_OTHER_BASE):
        cure = "Convert it: save_pretrained(…, path_initial_model_for_weight_conversion=…) makes a plain LoRA of it."
        raise DeltaError(f"{where}: init_lora_weights", "must not change the base, whose weights stay as they are", begin, cure)
    kind = "dora" if settings.flag("use_dora", False) else "lora"
    parts = ("lora_A.weight", "lora_B.weight", *(("lora_magnitude_vector",) if kind == "dora" else ()))
    older = {
        name.removesuffix(".weight") if name.endswith("lora_magnitude_vector.weight") else name: t for name, t in opened.tensors.items()
    }
    tensors = _of_linears(opened, older, parts)
    for name in (key for key in tensors if key.endswith(".lora_B.weight")):
        tensors[name] = tensors[name] * np.float32(_scale(settings, name.removesuffix(".lora_B.weight"), tensors[name].shape[-1]))
    linears_of(opened.config, Change(opened.path.name, kind, tensors))
    return kind, tensors


def _scale(settings: Fields, linear: str, rank: int) -> float:
    """alpha / r of a linear, or alpha / √r. `rank` is that of its tensors; the settings must agree."""
    ranks, alphas = (_by_pattern(settings, f"{what}_pattern", linear) for what in ("rank", "alpha"))
    stated = ranks.whole("r", 8)
    if stated < 1 or stated != rank:
        raise DeltaError(f"{settings.where}: r", f"must be the rank of the tensors of {linear}", f"{stated}, and {rank} there")
    return alphas.number("lora_alpha", 8) / (stated**0.5 if settings.flag("use_rslora", False) else stated)


def _by_pattern(settings: Fields, patterns: str, linear: str) -> Fields:
    """Return the settings with the value of the first pattern that matches this linear."""
    for pattern, value in settings.table_of(patterns).items():
        where = f"{settings.where}: {patterns}"
        if _match(rf"(.*\.)?({pattern})", linear, where):
            return Fields({"r" if patterns == "rank_pattern" else "lora_alpha": value}, where)
    return settings


def _ia3(opened: _Folder) -> tuple[str, dict[str, Array]]:
    for feature in ("fan_in_fan_out", "modules_to_save"):
        if opened.settings.table.get(feature):
            raise DeltaError(f"{opened.path / CONFIG}: {feature}", "is not supported", repr(opened.settings.table[feature])[:80])
    tensors = _of_linears(opened, opened.tensors, ("ia3_l",))
    linears_of(opened.config, Change(opened.path.name, "ia3", tensors))
    return "ia3", tensors


def _of_linears(opened: _Folder, tensors: Mapping[str, Array], parts: tuple[str, ...]) -> dict[str, Array]:
    """Return the tensors, once it is sure that they are these parts of all targeted linears, and nothing else."""
    targeted = [linear for linear in opened.shapes if _is_target(opened.settings, linear)]
    if not targeted:
        shown = json.dumps(opened.settings.table.get("target_modules"))[:200]
        cure = f"This model has {', '.join(name.split('.', 3)[3] for name in list(opened.shapes)[:7])} in each layer."
        raise DeltaError(f"{opened.path / CONFIG}: target_modules", "match nothing in this model", shown, cure)
    expected = {f"{linear}.{part}" for linear in targeted for part in parts}
    for name in tensors:
        if name in expected:
            continue
        if name.startswith(("lm_head.", "model.embed_tokens.")) or ".modules_to_save." in name:
            cure = "Save it with save_embedding_layers=False if they are as they were, or merge it with PEFT and pull that."
            raise DeltaError(f"{opened.path / WEIGHTS}: {name}", "changes the embedding or the head, which is not supported", "", cure)
        raise DeltaError(
            f"{opened.path / WEIGHTS}: {name}", "is no part of what the settings target in this model", "", f"For example {min(expected)}."
        )
    missing = sorted(expected - tensors.keys())
    if missing:
        rule, got = f"must hold all {len(expected)} tensors that its settings tell of", f"{len(tensors)}, without {missing[0]}"
        raise DeltaError(str(opened.path / WEIGHTS), rule, got, "It was cut short, or is of a model with fewer layers.")
    return dict(tensors)


def _is_target(settings: Fields, linear: str) -> bool:
    """Whether the settings target this linear: PEFT's `check_target_module_exists`."""
    excluded, targets = (settings.table.get(key) for key in ("exclude_modules", "target_modules"))
    if excluded and _matches(settings, "exclude_modules", linear):
        return False
    if targets == "all-linear":
        return True
    if not _matches(settings, "target_modules", linear):
        return False
    layers = settings.table.get("layers_to_transform")
    if isinstance(targets, str) or layers is None or layers == []:
        return True
    chosen = layers if isinstance(layers, list) else [layers]
    if not all(isinstance(layer, int) for layer in chosen):
        raise DeltaError(f"{settings.where}: layers_to_transform", "must be whole numbers", repr(layers)[:80])
    patterns = settings.table.get("layers_pattern") or r"[^.]*"
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        match = _match(rf"(?:^|.*?\.){pattern}\.(?P<at>\d+)\..*", linear, f"{settings.where}: layers_pattern")
        if match is not None:
            return int(match["at"]) in chosen
    return False


def _matches(settings: Fields, key: str, linear: str) -> bool:
    """Whether a list of endings, or one pattern, names this linear."""
    value = settings.table.get(key)
    if isinstance(value, str):
        return _match(value, linear, f"{settings.where}: {key}") is not None
    return any(linear == name or linear.endswith(f".{name}") for name in settings.texts(key) or ())


_LONGEST_PATTERN, _MOST_REPEATED = 2000, 4
_REPEATED = re.compile(r"[*+}]")
_NESTED = re.compile(r"\)[*+{]")


def _match(pattern: str, name: str, where: str) -> re.Match[str] | None:
    """Match the whole name. Raises DeltaError for an invalid pattern, or one that could take for ever."""
    if len(pattern) > _LONGEST_PATTERN or _NESTED.search(pattern) or len(_REPEATED.findall(pattern)) > _MOST_REPEATED:
        rule = f"must be at most {_LONGEST_PATTERN} characters with {_MOST_REPEATED} repetitions, none of a group"
        raise DeltaError(where, rule, pattern[:80], "Name the targets one by one.")
    try:
        return re.fullmatch(pattern, name)
    except re.error as error:
        raise DeltaError(where, "must be a regular expression", f"{pattern[:80]}: {error}") from error


def _virtual(opened: _Folder, kind: str) -> tuple[str, dict[str, Array]]:
    config, where = opened.config, opened.path / WEIGHTS
    strangers = [name for name in opened.tensors if name != "prompt_embeddings"]
    if strangers or "prompt_embeddings" not in opened.tensors:
        raise DeltaError(str(where), "must hold prompt_embeddings and nothing else", ", ".join(strangers[:3]) or "no such tensor")
    rows = opened.tensors["prompt_embeddings"]
    count, layers, groups = opened.settings.whole("num_virtual_tokens"), len(config.layers), config.num_kv_heads
    width = config.hidden_size if kind == "prompt" else layers * 2 * groups * config.head_dim
    if count < 1 or rows.shape != (count, width):
        raise DeltaError(
            f"{where}: prompt_embeddings", f"must have shape ({count}, {width}) on this model", rows.shape, "Is it another model's?"
        )
    if kind == "prompt":
        return kind, {"prompt_embeddings": rows}
    split = rows.reshape(count, layers, 2, groups, config.head_dim).transpose(2, 1, 3, 0, 4)
    tensors: dict[str, Array] = {"prefix.keys": np.ascontiguousarray(split[0]), "prefix.values": np.ascontiguousarray(split[1])}
    virtual_of(config, Change(opened.path.name, kind, tensors))
    return kind, tensors


def _lora_table(tensors: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, Array]]:
    ranks = {name.removesuffix(".lora_A.weight"): value.shape[0] for name, value in tensors.items() if name.endswith(".lora_A.weight")}
    most = max(set(ranks.values()), key=list(ranks.values()).count)
    others = {re.escape(linear): rank for linear, rank in ranks.items() if rank != most}
    table = {
        "peft_type": "LORA", "r": most, "lora_alpha": most, "rank_pattern": others, "alpha_pattern": others, "lora_dropout": 0.0,
        "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True, "modules_to_save": None, "use_rslora": False,
        "use_dora": any(name.endswith("lora_magnitude_vector") for name in tensors),
    }  # fmt: skip
    return table | _targets(ranks), {_PREFIX + name: value for name, value in tensors.items()}


def _ia3_table(tensors: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, Array]]:
    linears = {name.removesuffix(".ia3_l"): value for name, value in tensors.items()}
    inputs = sorted(linear for linear, value in linears.items() if value.shape[0] == 1)
    table = {"peft_type": "IA3", "target_modules": sorted(linears), "feedforward_modules": inputs, "fan_in_fan_out": False}
    table |= {"init_ia3_weights": True, "modules_to_save": None}
    return table, {_PREFIX + name: value for name, value in tensors.items()}


def _targets(linears: Iterable[str]) -> dict[str, Any]:
    """Names of linears: as endings and layers where every layer has the same ones, else in full."""
    by_layer: dict[int, set[str]] = {}
    for name in linears:
        by_layer.setdefault(int(name.split(".")[2]), set()).add(name.split(".", 3)[3])
    first = next(iter(by_layer.values()))
    if all(members == first for members in by_layer.values()):
        return {"target_modules": sorted(name.rsplit(".", 1)[1] for name in first), "layers_to_transform": sorted(by_layer)}
    return {"target_modules": sorted(linears)}


def _virtual_table(tensors: Mapping[str, Array]) -> tuple[dict[str, Any], dict[str, Array]]:
    keys = tensors["prefix.keys"]
    layers, groups, count, dim = keys.shape
    table: dict[str, Any] = {"num_virtual_tokens": count, "num_layers": layers, "num_transformer_submodules": 1}
    if "prompt_embeddings" in tensors:
        rows = tensors["prompt_embeddings"]
        table |= {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "RANDOM", "token_dim": rows.shape[1], "num_attention_heads": None}
        return table, {"prompt_embeddings": rows}
    table |= {"peft_type": "PREFIX_TUNING", "prefix_projection": False, "token_dim": groups * dim, "num_attention_heads": groups}
    both = np.stack((keys, tensors["prefix.values"])).transpose(3, 1, 0, 2, 4)  # (n, layers, 2, groups, D)
    return table, {"prompt_embeddings": both.reshape(count, -1)}


# Import of a PEFT folder: it becomes a candidate for a kept model, and a delta if it is admitted.


def bring_peft(home: Home, kept: Kept, folder: Path, name: str, admit: Admit, watch: RunWatch, sink: Sink) -> MadeDelta:
    """Keep the adapter of a PEFT folder as a delta on this model, if `admit` takes it. The same files under the same name again change
    nothing.

    Raises ConfigError for a name that can't be used or is taken, Refused, and the errors of `read_peft`: CheckpointError for files,
    DeltaError for adapters that don't fit this model or can't be kept.
    """
    check_name(name)
    checkpoint = open_weights(home, kept)
    kind, tensors = read_peft(folder, checkpoint.config)
    parted(kept.name, [*(get_delta(home, digest).kind for digest in kept.deltas), kind])
    sums = {"config": digest_file(folder / CONFIG), "weights": digest_file(folder / WEIGHTS)}

    def make(_job: DeltaJob[dict[str, str]]) -> Candidate:
        whole = _prompt(checkpoint, tensors) if kind == "prompt" else tensors
        now = datetime.now(UTC).isoformat(timespec="seconds")
        origin = {"method": "imported", "data": folder.name, "versions": f"ingle {__version__}", "created_at": now, **sums}
        return Candidate(name, kind, kept.digest, whole, origin)

    def events(_report: Mapping[str, Any], delta: Delta) -> list[Event]:
        facts: dict[str, Fact] = {"kind": delta.kind, "delta": delta.digest, "base": delta.base_digest, "tensors": len(delta.tensors)}
        return [Event("pull.delta", f"{kept.name}+{delta.name}", {**facts, "weights": delta.origin["weights"]})]

    job = delta_job("import", 1, home, kept, name, sums, watch)
    return make_delta(job, make, events, admit, sink, mine=lambda _job, delta: sums.items() <= delta.origin.items())


def _prompt(checkpoint: Checkpoint, tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Compute the keys and values that the layers make of a prompt's embeddings; that takes the model itself, and PyTorch."""
    from ingle.core.files import need_learning

    need_learning()
    import torch

    from ingle.model.module import load_module
    from ingle.tuning.virtual import prompt_tensors

    prompt = prompt_tensors(load_module(checkpoint), torch.from_numpy(tensors["prompt_embeddings"]))
    return {name: tensor.numpy() for name, tensor in prompt.items()}
