"""One training in one process: `python bench/train_runs.py ours|peft|judge SPEC.json`, driven by bench/train.py.

Prints one JSON line. `ours` and `peft` train LoRA on the same tokens from the same Hugging Face folder, and write the adapter at the same
places of the run as `BASE.lora_A.weight` and `.lora_B.weight`, the scale within B. `judge` puts such adapters into Hugging Face's own
model, in float32, and tells the loss on held-out documents; so neither side judges itself.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

# The Trainer's ways to bfloat16: (weights of the base in bfloat16, autocast, adapters in float32).
BF16 = {"weights": (True, True, True), "autocast": (False, True, True), "pure": (True, False, False)}
JUDGE_ROWS = 16  # documents at a time


class Clock:
    """When each step ended; time spent between steps on adapters that are written is left out."""

    def __init__(self, dump: Callable[[str], None], places: int) -> None:
        self._dump, self._places, self._begin = dump, places, time.perf_counter()
        self.seconds: list[float] = []

    def step(self, steps: int) -> None:
        """A step of `steps` has ended."""
        self.seconds.append(time.perf_counter() - self._begin)
        done = len(self.seconds)
        if self._places and done in {round(steps * place / self._places) for place in range(1, self._places + 1)}:
            self._dump(f"{done / steps:.4f}")
        self._begin = time.perf_counter()


class Documents:
    """Tokens and marks by document, as bench/train.py wrote them."""

    def __init__(self, path: str) -> None:
        arrays = np.load(path)
        self.ids, self.answer, self.bounds = arrays["ids"], arrays["answer"], arrays["bounds"]
        self.train, self.held_out = arrays["train"].tolist(), arrays["held_out"].tolist()

    def row(self, number: int) -> dict[str, list[int]]:
        """One document as the Trainer wants it."""
        at = slice(self.bounds[number], self.bounds[number + 1])
        ids = self.ids[at].tolist()
        labels = [token if marked else -100 for token, marked in zip(ids, self.answer[at], strict=True)]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


def peak_mb() -> float:
    """VmHWM: the most that this process ever had in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def ours(spec: dict[str, Any]) -> dict[str, Any]:
    """Our loop."""
    import torch
    from safetensors.torch import save_file

    from ingle.core.digest import digest_json
    from ingle.model.checkpoint import open_checkpoint
    from ingle.model.module import load_module
    from ingle.train.corpus import Corpus
    from ingle.train.loop import train
    from ingle.train.loop_settings import Schedule, TrainSettings, TrainWatch
    from ingle.train.optimisers import OptimiserSettings
    from ingle.train.packing import Data
    from ingle.tuning.linears import chosen_layers
    from ingle.tuning.tuning_method import find_method

    documents, out = Documents(spec["data"]), Path(spec["out"])
    count = len(documents.bounds) - 1
    sources = tuple(map(str, range(count)))
    labels, digest = np.full(count, -1, np.int8), digest_json(documents.bounds.tolist())
    corpus = Corpus("answers", documents.ids, documents.answer, documents.bounds, labels, sources, digest)
    module = load_module(open_checkpoint(Path(spec["model"])), torch.bfloat16)
    method = find_method("lora")
    chosen = method.Settings(rank=spec["rank"], alpha=spec["alpha"])
    attached = method.attach(module, chosen_layers(module.config, spec["layers"]), chosen, spec["seed"])
    loaded = peak_mb()

    def dump(name: str) -> None:
        save_file({key: value.contiguous() for key, value in attached.collect().items()}, out / f"{name}.safetensors")

    settings = TrainSettings(
        epochs=spec["epochs"], max_steps=spec["max_steps"], batch_tokens=spec["batch_tokens"], accumulate=spec["pieces"],
        precision="bf16", seed=spec["seed"],
        optimiser=OptimiserSettings(learning_rate=spec["rate"]), schedule=Schedule("cosine", warm_up=spec["warm_up"]),
        checkpoint_minutes=0, cache_mb=spec["cache_mb"],
    )  # fmt: skip
    clock = Clock(dump, spec["places"])
    report = train(
        module, attached.parameters, Data(corpus, documents.train), settings, out, TrainWatch(lambda progress: clock.step(progress.steps))
    )
    lines = (out / "loss.csv").read_text().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    totals = [0, *(int(row["tokens"]) for row in rows)]
    return {
        "tokens": [b - a for a, b in pairwise(totals)], "seconds": clock.seconds, "peak_mb": peak_mb(),
        "loaded_mb": loaded, "losses": [float(row["loss"]) for row in rows], "epochs": [float(row["epoch"]) for row in rows],
        "trained": report.trained_parameters, "cache_hit_rate": report.cache_hit_rate,
    }  # fmt: skip


def peft(spec: dict[str, Any]) -> dict[str, Any]:
    """PEFT in Hugging Face's Trainer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

    documents, out = Documents(spec["data"]), Path(spec["out"])
    set_seed(spec["seed"])
    weights, autocast, adapters_fp32 = BF16[spec["bf16"]]
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.bfloat16 if weights else torch.float32)
    model.config.use_cache = False
    config = LoraConfig(r=spec["rank"], lora_alpha=spec["alpha"], target_modules="all-linear", lora_dropout=0.0)
    model = get_peft_model(model, config, autocast_adapter_dtype=adapters_fp32)
    loaded = peak_mb()

    def dump(name: str) -> None:
        prefix, tensors = "base_model.model.", {}
        for key, value in model.named_parameters():
            if value.requires_grad:
                scale = spec["alpha"] / spec["rank"] if "lora_B" in key else 1.0
                tensors[key.removeprefix(prefix).replace(".default.", ".")] = value.detach().float() * scale
        save_file(tensors, out / f"{name}.safetensors")

    clock, batches, padded = Clock(dump, spec["places"]), [], []

    def collate(rows: list[dict[str, list[int]]]) -> Any:
        batch = _padded(rows)
        batches.append(sum(len(row["input_ids"]) for row in rows))
        padded.append(batch["input_ids"].numel())
        return batch

    losses: list[float] = []

    class TrainWatch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.step(state.max_steps)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            losses.extend([logs["loss"]] if "loss" in (logs or {}) else [])

    group = {"train_sampling_strategy": "group_by_length"}
    if "group_by_length" in TrainingArguments.__dataclass_fields__:  # its name until transformers 5
        group = {"group_by_length": True}
    steps = spec["max_steps"] or spec["epochs"] * -(-len(documents.train) // (spec["batch"] * spec["accumulate"]))
    arguments = TrainingArguments(
        output_dir=str(out), per_device_train_batch_size=spec["batch"], gradient_accumulation_steps=spec["accumulate"],
        num_train_epochs=spec["epochs"], max_steps=spec["max_steps"] or -1, max_grad_norm=1.0, bf16=autocast, use_cpu=True,
        gradient_checkpointing=False, save_strategy="no", report_to="none", logging_steps=1, disable_tqdm=True, seed=spec["seed"],
        dataloader_pin_memory=False, remove_unused_columns=False, **(group if spec["group"] else {}),
    )  # fmt: skip
    moved = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(moved, spec["rate"], weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _factor(step, steps, spec["warm_up"]))
    rows = [documents.row(number) for number in documents.train]
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[TrainWatch()], optimizers=(optimiser, schedule)
    )
    trainer.train()
    size = spec["accumulate"]
    tokens = [sum(batches[i * size : (i + 1) * size]) for i in range(len(clock.seconds))]
    return {
        "tokens": tokens, "seconds": clock.seconds, "peak_mb": peak_mb(), "loaded_mb": loaded, "losses": losses,
        "padding": 1 - sum(batches) / sum(padded), "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }  # fmt: skip


def _factor(step: int, steps: int, warm_up: float) -> float:
    """Of the learning rate: warm-up, then half a cosine, as ours. (The Trainer's own is one step late, and its first step does nothing.)"""
    rise = math.ceil(warm_up * steps)
    return (step + 1) / rise if step < rise else (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) / 2


def _padded(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    """Rows as tensors, padded to the longest."""
    import torch

    most = max(len(row["input_ids"]) for row in rows)
    fills = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    return {key: torch.tensor([[*row[key], *[fill] * (most - len(row[key]))] for row in rows]) for key, fill in fills.items()}


def judge(spec: dict[str, Any]) -> dict[str, Any]:
    """Held-out loss per answer token of each adapter, and without any."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    documents = Documents(spec["data"])
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32).eval()
    base = {name: value.detach().clone() for name, value in model.named_parameters()}
    found = {"": _loss(model, documents)}
    for path in spec["adapters"]:
        tensors = load_file(path)
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(base[name])
            for key in tensors:
                if key.endswith(".lora_A.weight"):
                    linear = key.removesuffix(".lora_A.weight")
                    model.get_submodule(linear).weight += tensors[f"{linear}.lora_B.weight"] @ tensors[key]
        found[path] = _loss(model, documents)
    return {"held_out": found}


def _loss(model: Any, documents: Documents) -> float:
    import torch

    order = sorted(documents.held_out, key=lambda number: documents.bounds[number + 1] - documents.bounds[number])
    total, terms = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(order), JUDGE_ROWS):
            batch = _padded([documents.row(number) for number in order[start : start + JUDGE_ROWS]])
            wanted = batch["labels"][:, 1:] != -100
            states = model.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state[:, :-1][wanted]
            total += float(torch.nn.functional.cross_entropy(model.lm_head(states), batch["labels"][:, 1:][wanted], reduction="sum"))
            terms += int(wanted.sum())
    return total / terms


def main() -> None:
    spec = json.loads(Path(sys.argv[2]).read_text())
    result = {"ours": ours, "peft": peft, "judge": judge}[sys.argv[1]](spec)
    print("\n" + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
