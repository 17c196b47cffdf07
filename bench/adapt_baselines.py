"""What learning while serving is compared with, on the same corrections and questions, in the same table.

base                 nothing taught
prompt memory only   all corrections kept, none learned; asked with memory on, all of them at the end
naive LoRA           one LoRA (rank 8, upper third) trained on after each correction, on that one alone, until its loss is below 0.05
batch fine-tune      one LoRA (rank 8, upper third) trained once at the end, on all of them for 30 epochs (`ingle make tune`)

The last two act on everything that is asked; they are kept as deltas, past the gate, and served like any other.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adapt_bits import compared, held_out, text_bits
from adapt_data import Corrections
from adapt_home import Log, Pupil, bench_home, marks, plain_answers, shown
from harness import Figure
from ingle.engine.language_model import LanguageModel
from ingle.engine.loading import open_model
from ingle.engine.packs import checkpoint_tokenizer, kept_source, open_weights
from ingle.home.deltas import delta_report, list_deltas, put_candidate, put_delta
from ingle.home.kept import get_kept
from servers import say

RANK, LAYERS, RATE = 8, "upper-third", 1e-3
ENOUGH, MOST_STEPS = 0.05, 60
EPOCHS, DOCUMENTS = 30, 60
Summary = Callable[..., dict[str, Any]]


def run(folder: Path, data: str, file: Corrections, base: Log, result: dict[str, Any], table: list[list[object]], summary: Summary) -> None:
    """Measures all of them, or reads what is known already."""
    name = f"baselines-{data}-{len(file.corrections)}-all"
    pupil, log = Pupil(bench_home(folder, name)), Log(folder / f"{name}.jsonl")
    found: dict[str, Any] = {}
    _by_base(file, base, log)
    _by_memory(pupil, file, base, log)
    for which, make in (("naive", naive), ("batch", batch)):
        if all(log.get(which, one.id) for one in file.corrections) and log.get(which, "bits"):
            continue
        seconds = make(pupil, file)
        kept = get_kept(pupil.home, f"{pupil.kept.name}+{which}")
        model = open_model(kept_source(pupil.home, kept))
        _ask(model, which, file, base, log)
        texts = held_out(pupil.home, DOCUMENTS)
        change = compared(text_bits(pupil.model, texts), text_bits(model, texts))
        log.put(which, "bits", change=change, seconds=seconds)
    titles = {"base": "base", "memory": "prompt memory only", "naive": "naive LoRA per correction", "batch": "one batch fine-tune"}
    for which, title in titles.items():
        figures = found[which] = summary(file.corrections, [log], base, which)
        cells = [shown(figures.get(key)) for key in ("own", "paraphrases", "near", "unrelated")]
        known = log.get(which, "bits") or {}
        figures |= {key: known[key] for key in ("change", "seconds") if key in known}
        seconds = figures.get("seconds")
        bits = f"{figures['change']['percent']:+.3f} %" if "change" in figures else ""
        table.append([title, *cells, bits, "" if not seconds else f"{Figure(tuple(seconds)).median:.1f}"])
    result["baselines"] = found
    pupil.close()


def naive(pupil: Pupil, file: Corrections) -> list[float]:
    """The delta `naive` on the model. Returns the seconds that each correction took."""
    import torch
    from torch.nn.functional import cross_entropy

    from ingle.model.module import load_module
    from ingle.train.example_files import Encoder, Record
    from ingle.tuning.linears import chosen_layers
    from ingle.tuning.tuning_method import find_method

    if made := _made(pupil, "naive"):
        return list(made["seconds"])
    torch.manual_seed(0)
    checkpoint = open_weights(pupil.home, pupil.kept)
    encoder = Encoder(checkpoint_tokenizer(checkpoint, pupil.home.base_folder(pupil.kept.base)), 512)
    module, method = load_module(checkpoint).requires_grad_(False), find_method("lora")
    settings = method.Settings(rank=RANK)
    attached = method.attach(module, chosen_layers(module.config, LAYERS), settings, 0)
    parameters = [parameter.requires_grad_(True) for parameter in attached.parameters.values()]
    seconds = []
    for number, one in enumerate(file.corrections, 1):
        began = time.perf_counter()
        record = Record("the correction", "completion", ({"role": "user", "content": one.question},))
        document = encoder.answered(record, one.answer)
        ids, answer = torch.from_numpy(document.ids.astype("int64")), torch.from_numpy(document.answer)
        optimiser = torch.optim.AdamW(parameters, RATE, weight_decay=0.0)
        for _ in range(MOST_STEPS):
            states = module.hidden(ids[None, :-1])[0][answer[1:]]
            loss = cross_entropy(module.logits(states), ids[1:][answer[1:]])
            if float(loss.detach()) < ENOUGH:
                break
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        seconds.append(time.perf_counter() - began)
        if number % 10 == 0:
            say(f"naive LoRA: {number} of {len(file.corrections)}, {seconds[-1]:.1f} s for the last")
    tensors = {key: tensor.detach().float().contiguous().numpy() for key, tensor in attached.collect().items()}
    put_delta(pupil.home, "naive", method.KIND, pupil.kept.digest, tensors, {"method": "lora"}, {"seconds": seconds})
    return seconds


def batch(pupil: Pupil, file: Corrections) -> list[float]:
    """The delta `batch` on the model, by `tune`. Returns the seconds that training took, by correction."""
    from ingle.tuning.tune import tune
    from ingle.tuning.tune_settings import settings_of

    count = len(file.corrections)
    if made := _made(pupil, "batch"):
        return [made["train"]["seconds"] / count]
    path = pupil.home.root / "corrections.jsonl"
    rows = ({"prompt": one.question, "completion": one.answer} for one in file.corrections)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    told = [
        f"options.rank={RANK}", f'layers="{LAYERS}"', f"train.epochs={EPOCHS}", f"train.optimiser.learning_rate={RATE}",
        "train.batch_tokens=1024", "data.held_out=0", "judge.forgetting=0", "judge.held_out=0",
    ]  # fmt: skip
    say(f"batch fine-tune: {EPOCHS} epochs of {count} corrections")
    tuned = tune(pupil.home, pupil.kept, [str(path)], "batch", settings_of({}, told), lambda made, *_: put_candidate(pupil.home, made))
    return [tuned.report["train"]["seconds"] / count]


def _made(pupil: Pupil, name: str) -> dict[str, Any] | None:
    """The report of the delta of that name, if it is there from before."""
    for delta in list_deltas(pupil.home, pupil.kept.digest):
        if delta.name == name:
            return delta_report(pupil.home, delta.digest)
    return None


def _by_base(file: Corrections, base: Log, log: Log) -> None:
    """Ties are wrong, so the base has nothing right by this measure; what it says by chance is in `paraphrases_right_before`."""
    for one in file.corrections:
        if log.get("base", one.id) is None:
            row = base.rows["base", one.id]
            texts = [row["own"], *row["paraphrases"]]
            log.put("base", one.id, hits=marks(one, texts, texts), same=[True] * len(one.near_misses), paraphrases=row["paraphrases"])
    log.put("base", "unrelated", same=[True] * len(file.unrelated))


def _by_memory(pupil: Pupil, file: Corrections, base: Log, log: Log) -> None:
    for one in file.corrections:
        pupil.teach(one.question, one.answer)
    for number, one in enumerate(file.corrections, 1):
        if log.get("memory", one.id) is None:
            questions = [one.question, *one.paraphrases, *one.near_misses]
            _put(log, "memory", one, [answer.text for answer in pupil.answers(questions, memory=True)], base)
            if number % 10 == 0:
                say(f"prompt memory only: {number} of {len(file.corrections)}")
    if log.get("memory", "unrelated") is None:
        texts = [answer.text for answer in pupil.answers(file.unrelated, memory=True)]
        log.put("memory", "unrelated", same=_same(texts, base.rows["base", "unrelated"]["texts"]))


def _ask(model: LanguageModel, which: str, file: Corrections, base: Log, log: Log) -> None:
    for number, one in enumerate(file.corrections, 1):
        if log.get(which, one.id) is None:
            _put(log, which, one, plain_answers(model, [one.question, *one.paraphrases, *one.near_misses]), base)
            if number % 10 == 0:
                say(f"{which}: {number} of {len(file.corrections)} asked")
    log.put(which, "unrelated", same=_same(plain_answers(model, file.unrelated), base.rows["base", "unrelated"]["texts"]))


def _put(log: Log, which: str, one: Any, texts: Sequence[str], base: Log) -> None:
    before, asked = base.rows["base", one.id], 1 + len(one.paraphrases)
    good = marks(one, texts[:asked], [before["own"], *before["paraphrases"]])
    log.put(which, one.id, hits=good, same=_same(texts[asked:], before["near"]), texts=list(texts))


def _same(texts: Sequence[str], before: Sequence[str]) -> list[bool]:
    return [text == old for text, old in zip(texts, before, strict=True)]
