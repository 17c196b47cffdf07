"""From texts to a base in the home: vocabulary, rows, initial values, training, files."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingle.core.config import to_table
from ingle.core.digest import digest_file
from ingle.core.errors import ConfigError
from ingle.core.files import sync_folder, write_atomic
from ingle.core.spec import ModelConfig
from ingle.home.base import CURVES, REPORT, Base, base_report, describe_base, write_base
from ingle.home.kept import Kept, adopt, refuse_taken
from ingle.home.kept_file import KeptFile
from ingle.home.staging import staging
from ingle.model.checkpoint import check_finite, open_checkpoint
from ingle.model.exporting import write_hf
from ingle.model.hf_config import config_to_hf
from ingle.model.tokenizer import Tokenizer
from ingle.scaling import report
from ingle.scaling.corpus import make_data
from ingle.scaling.first_values import new_module
from ingle.scaling.job import ScratchJob
from ingle.scaling.shape import config_of, memory_parameters_of, parameters_of
from ingle.scaling.vocabulary import kept_vocabulary
from ingle.train.checkpoints import TRAINED, load_tensors
from ingle.train.loop import train
from ingle.train.making import provenance, to_json
from ingle.train.packing import Data
from ingle.train.precision import device_of
from ingle.train.report import held_out_of
from ingle.train.settings import TrainReport, TrainWatch
from ingle.train.trouble import memory_errors, smaller_batches

SOURCE = "train:"
"""Start of the source of a base from scratch; its revision is the run's key."""


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
    trained = train(module, parameters, data, settings.train, work, TrainWatch(job.watch.train, job.watch.say))
    if trained.stopped == "interrupted":
        raise job.interrupted(f"after step {trained.steps}")
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
        "version": report.VERSION,
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
