"""From texts to a base in the home: vocabulary, rows, initial values, training, files, report."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ingle.core.config import to_table
from ingle.core.digest import digest_file, digest_json
from ingle.core.errors import ConfigError
from ingle.core.files import sync_folder, write_atomic
from ingle.core.report import Event, Fact, shown_interval
from ingle.core.spec import ModelConfig
from ingle.home.base import CURVES, REPORT, Base, base_report, describe_base, write_base
from ingle.home.kept import Kept, adopt, refuse_taken
from ingle.home.kept_file import KeptFile
from ingle.home.staging import staging
from ingle.model.checkpoint import check_finite, open_checkpoint
from ingle.model.export_formats import write_hf
from ingle.model.hf_config import config_to_hf
from ingle.model.module import Attention, CausalLM
from ingle.model.module_parts import READ
from ingle.model.tokenizer import Tokenizer
from ingle.scratch.scratch_settings import ScratchSettings, config_of, memory_parameters_of, parameters_of
from ingle.scratch.text_sources import Texts, kept_vocabulary, make_data
from ingle.train.checkpoints import TRAINED, load_tensors
from ingle.train.loop import train_for
from ingle.train.loop_settings import TrainReport
from ingle.train.making import (
    MakingJob,
    cost_rows,
    figure_facts,
    held_out_of,
    memory_errors,
    provenance,
    smaller_batches,
    to_json,
    training_facts,
)
from ingle.train.optimisers import device_of
from ingle.train.packing import Data

# Initial values of the parameters.


SPREAD = 0.02
_INTO_STREAM = ("o_proj", "down_proj")


def new_module(config: ModelConfig, seed: int) -> CausalLM:
    """Make a module with initial values, in float32.

    Matrices are normal with a spread of 0.02; those that add to the residual stream, 2 a layer, with 0.02 / √(2 · layers), so that the
    stream is as wide at its end however many layers there are (GPT-2). Norms begin at 1, biases at 0, memories as `Memory.begin` says.
    A memory without a window beside it is read from the start, for there is nothing else.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what PyTorch draws here is written over
        module = CausalLM(config)
    draw = torch.Generator().manual_seed(seed)
    narrow = SPREAD / math.sqrt(2 * len(config.layers))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".memory." in name or name.endswith("norm.weight"):
                continue
            if parameter.ndim == 1:
                parameter.zero_()
            else:
                parameter.normal_(0.0, narrow if name.split(".")[-2] in _INTO_STREAM else SPREAD, generator=draw)
        for part in module.modules():
            if isinstance(part, Attention) and part.memory is not None:
                part.memory.begin()
                if not part.spec.window:
                    part.memory.gate.bias.fill_(-READ)
    return module


# Reports of a training from scratch: `report.json` beside the base, and facts for the ledger.


VERSION = 1


def trained_event(report: Mapping[str, Any]) -> Event:
    """Event of a new base, for the ledger."""
    names = ("base", "data_digest", "rows", "seed", "parameters", "memory_parameters")
    return Event("train", report["model"], {name: report[name] for name in names} | training_facts(report))


def judged_event(report: Mapping[str, Any]) -> Event | None:
    """Event of judging the model as it is served; None if nothing was measured."""
    facts: dict[str, Fact] = {"base": report["base"], "judged": digest_json(report["settings"]["judge"])[:16]}
    for one in report["served"]:
        if one["name"] in ("bits_per_byte", "recalled"):
            name = one["name"] if one["of"] == "planted pairs" else f"{one['of']}_{one['name']}"
            facts |= {**figure_facts(name, one), "model_digest": one["model_digest"]}
    return Event("train.judge", report["model"], facts) if report["served"] else None


def rows(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows (figure, value, interval or origin), for people."""
    train, held_out = report["train"], report["held_out"]
    table = [
        ("parameters", f"{report['parameters']:,}", f"{report['memory_parameters']:,} of them in memories; MLP {report['mlp']} wide"),
        ("loss, training", f"{train['loss']:.4f}", f"{train['first_loss']:.4f} at the first step"),
    ]
    if held_out["after"] is not None:
        table.append(("loss, held out", f"{held_out['after']:.4f}", f"{held_out['before']:.4f} before"))
    for one in report["served"]:
        label = f"{one['of']}: {one['name'].replace('_', ' ')}"
        table.append((label, f"{one['value']:.4f}", shown_interval(one)))
    return [*table, *cost_rows(train)]


# From texts to a base in the home: vocabulary, rows, initial values, training, files.


SOURCE = "train:"  # start of the source of a base from scratch; its revision is the run's key


@dataclass(frozen=True, slots=True, kw_only=True)
class ScratchJob(MakingJob[ScratchSettings]):
    """A training in progress. Its key is a digest of all that the trained tensors follow from."""

    texts: Texts


def make_base(job: ScratchJob) -> tuple[Kept, dict[str, Any]]:
    """Train, and keep the result under the job's name; return it with its report.

    Raises ConfigError, TrainError, HomeError, Interrupted.
    """
    settings = job.settings
    job.watch.bytes("finding words", 0, None)
    tokenizer = kept_vocabulary(job.folder / "tokenizer", job.texts.train, settings.tokenizer.size)
    job.check()
    data = make_data(job.texts, tokenizer, settings.data, lambda done, of: job.watch.pieces("reading texts", done, of))
    job.check()
    config = config_of(settings.model, tokenizer.vocab_size)
    with memory_errors(smaller_batches(settings.train.batch_tokens, settings.train.recompute)):
        module = new_module(config, settings.train.seed).to(device_of(settings.device))
    parameters = dict(module.named_parameters())
    work = job.folder / data.corpus.digest[:16]  # another for another state of the data, or of this program
    trained = train_for(job, module, parameters, data, settings.train, work)
    table = _report(job, config, data, trained)
    kept = _keep(job, work, config, tokenizer, table)
    return kept, {**table, "base": kept.base}


def _keep(job: ScratchJob, work: Path, config: ModelConfig, tokenizer: Tokenizer, table: Mapping[str, Any]) -> Kept:
    """Keep the trained values as files of a base, with the report beside them; all of it or nothing."""
    values = load_tensors(work / TRAINED)
    with staging(job.home) as folder:
        write_hf(folder, config, lambda name: values[name].numpy(), "float32", tokenizer, own=_is_own(config))
        files = tuple(KeptFile(path.name, path.stat().st_size, digest_file(path)) for path in sorted(folder.iterdir()))
        base = describe_base(files, f"{SOURCE}{job.name}", job.key, "")
        refuse_taken(job.home, job.name, base.digest, replace=False)
        check_finite(open_checkpoint(folder))
        write_report(folder, {**table, "base": base.digest})
        for name in CURVES:
            write_atomic(folder / name, (work / name).read_bytes())
        write_base(folder, base)
        sync_folder(folder)
        kept = adopt(job.home, folder, base, job.name)
    if (base_report(job.home, base.digest) or {}).get("run") != job.key:  # another training gave the same bytes, and they are kept already
        write_report(job.home.base_folder(base.digest), {**table, "base": base.digest})
    return kept


def write_report(folder: Path, table: Mapping[str, Any]) -> None:
    """Write the report beside the files of a base."""
    write_atomic(folder / REPORT, to_json(table), mode=0o600)


def made_before(job: ScratchJob, bases: list[Base]) -> Base | None:
    """Find the base that this very training made, under any name, or an equal one from another training."""
    from_scratch = [base for base in bases if base.source.startswith(SOURCE)]
    return next((base for base in from_scratch if job.key in (base.revision, (base_report(job.home, base.digest) or {}).get("run"))), None)


def _is_own(config: ModelConfig) -> bool:
    """Whether only Ingle has a class for this config."""
    try:
        config_to_hf(config)
    except ConfigError:
        return True
    return False


def _report(job: ScratchJob, config: ModelConfig, data: Data, trained: TrainReport) -> dict[str, Any]:
    settings, corpus = job.settings, data.corpus
    before, after = held_out_of(trained, settings.train.patience)
    return {
        "version": VERSION,
        "finished": False,
        "model": job.name,
        "title": settings.title,
        "settings": to_table(settings),
        "seed": settings.train.seed,
        "run": job.key,
        "command": job.command,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "data_digest": corpus.digest,
        "texts": len(job.texts.train),
        "held_out_texts": len(job.texts.held_out),
        "rows": len(data.train),
        "row_tokens": int(corpus.sizes[list(data.train)].sum()),
        "vocabulary": config.vocab_size,
        "mlp": config.intermediate_size,
        "parameters": parameters_of(config),
        "memory_parameters": memory_parameters_of(config),
        "train": asdict(trained),
        "held_out": {"before": before, "after": after},
        "served": [],
        "notes": [],
    }
