"""A homework by PyTorch: the factors are put into the model, and trained, or their records' gradients are cut and summed."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ingle.core.config import from_table
from ingle.engine.packs import checkpoint_tokenizer, open_weights
from ingle.home.place import Home
from ingle.model.module import CausalLM, load_module
from ingle.train.by_document import clipped_sum, drawn, records
from ingle.train.checkpoints import TRAINED, load_tensors
from ingle.train.corpus import DataSettings
from ingle.train.loop import determined, train
from ingle.train.loop_settings import Schedule, TrainSettings
from ingle.train.low_rank import added_parameters, put_low_rank
from ingle.train.making import memory_errors, smaller_batches
from ingle.train.optimisers import DTYPES, OptimiserSettings, device_of, keep_few_programs
from ingle.train.packing import Data
from ingle.tuning.comparison import sample
from ingle.tuning.data import bring, find_sources, learn_from
from ingle.tuning.homework import Arrays, HeldOutExample, Homework, HomeworkDone, Learning, interrupted
from ingle.tuning.tune_settings import TuneSettings

# Share of a home's records that it never learns from, the fewest of them (but at most a quarter of all), and the most that a vote reads.
# Which ones follows from their content alone, so they are the same in every round.
HELD_OUT, LEAST_HELD_OUT, MOST_MEASURED = 0.1, 12, 50
LINEAR_PARTS = (".lora_A.weight", ".lora_B.weight")


def do_homework(homework: Homework, factors: Arrays, folder: Path) -> HomeworkDone:
    """Do a homework here. Equal tasks give equal factors, with as many threads; with `clip`, other records are drawn each time.

    `folder` takes the training's own files. Raises ConfigError for data that can't be used, the errors of opening the model and of
    training, Interrupted.
    """
    home, learning = Home(Path(homework.home)), homework.learning
    checkpoint = open_weights(home, homework.kept)
    tokenizer = checkpoint_tokenizer(checkpoint, home.base_folder(homework.kept.base))
    files = bring(home, find_sources(homework.sources), 0, folder / "data")
    limit = min(checkpoint.config.context_length, learning.batch_tokens)
    # With a fewest, one record more or less could move another one across; then two records would differ, and the promise is about one.
    least = 0 if homework.clip else LEAST_HELD_OUT
    options = from_table(DataSettings, {"held_out": HELD_OUT, "least_held_out": least, "template": learning.template})
    data = learn_from(files, tokenizer, limit, TuneSettings(data=options)).data
    held_out = tuple(HeldOutExample(tuple(one.ids.tolist()), tuple(one.answer.tolist())) for one in sample(data, MOST_MEASURED))
    keep_few_programs()
    with memory_errors(smaller_batches(learning.batch_tokens, recompute=False)):
        module = load_module(checkpoint, DTYPES[learning.precision], device_of("auto"))
        parameters = {name: one for name, one in with_factors(module, factors).items() if name in homework.names}
        done = _summed(module, parameters, data, homework) if homework.clip else _trained(module, parameters, data, homework, folder)
    return HomeworkDone({name: tensor.cpu().numpy() for name, tensor in done.items()}, held_out)


def with_factors(module: CausalLM, factors: Arrays) -> dict[str, nn.Parameter]:
    """Put factors beside a module's linears, their scale within B. Returns them as parameters, by the factors' names."""
    names = sorted({name.removesuffix(part) for name in factors for part in LINEAR_PARTS if name.endswith(part)})
    rank = len(factors[names[0] + LINEAR_PARTS[0]])
    parameters = added_parameters(put_low_rank(module, names, rank, 1.0, 0))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(factors[name], np.float32)))
    return parameters


def course_of_round(learning: Learning, seed: int) -> TrainSettings:
    """Return the settings of a round's training."""
    return TrainSettings(
        max_steps=learning.steps, batch_tokens=learning.batch_tokens, optimiser=OptimiserSettings(learning_rate=learning.rate),
        schedule=Schedule(kind="constant", warm_up=0.0), precision=learning.precision, checkpoint_minutes=0.0, seed=seed,  # type: ignore[arg-type]
    )  # fmt: skip


def _trained(
    module: CausalLM, parameters: Mapping[str, nn.Parameter], data: Data, homework: Homework, folder: Path
) -> Mapping[str, torch.Tensor]:
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)  # of an earlier round
    report = train(module, parameters, Data(data.corpus, data.train), course_of_round(homework.learning, homework.seed), run)
    if report.stopped == "interrupted":
        raise interrupted(f"after step {report.steps}")
    return load_tensors(run / TRAINED)


def _summed(module: CausalLM, parameters: Mapping[str, nn.Parameter], data: Data, homework: Homework) -> Mapping[str, torch.Tensor]:
    module.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    for owner in {name.rsplit(".", 2)[0] for name in parameters}:
        module.get_submodule(owner).to(DTYPES[homework.learning.precision])
    chosen = drawn(records(data.corpus, data.train), homework.share)
    with determined():
        return clipped_sum(module.eval(), parameters, data.corpus, chosen, homework.clip, homework.learning.batch_tokens)
