"""What pruning costs and gains: every pruner, by structure and share, against the model as it was.

    python bench/prune.py --part sparse                    # half of all weights, and two of every four
    python bench/prune.py --part structured                # layers, channels, head groups
    python bench/prune.py --part structured --recover 20   # each with so many minutes of recovery
    python bench/prune.py --part quarter                   # about a quarter of all parameters gone, by layers and by channels

All rows are served in the same format (`--format`, by default int8, so that no row is rounded more than another), measured on the same
texts and questions, and paced by turns with the original. What is finished is kept in the home: the same command goes on where it was.
"""

import argparse
import json
import shutil
import sys
from dataclasses import replace

from harness import finish, show
from ingle.compress.calibration import CalibrationSettings, read_texts
from ingle.compress.front import MeasureSettings, loss_of, pace, quality
from ingle.compress.pruning import PruneSettings, names
from ingle.compress.recovery import RecoverySettings
from ingle.compress.search import RecipeStep, let_packs_go, scratch_of
from ingle.core.config import to_table
from ingle.core.digest import digest_json
from ingle.core.files import write_atomic
from ingle.engine.loading import open_model
from ingle.engine.packs import kept_source, read_pack
from ingle.home.deltas import put_candidate
from ingle.home.kept import get_kept
from ingle.home.place import find_home
from ingle.train.making import RunWatch

HEAD = ["structure", "share", "by", "recovered", "bits per byte", "right", "parameters, M", "MB", "tokens/s, ×", "J/token, ×"]


def rows_of(part: str, calibration: CalibrationSettings, recovery: RecoverySettings, only: list[str]) -> list[PruneSettings]:
    """The table's rows."""
    wanted = {
        "sparse": [("none", 0.5), ("2:4", 0.5)],
        "structured": [("layers", 0.1), ("layers", 0.2), ("channels", 0.25), ("heads", 1 / 3)],
        "quarter": [("layers", 1 / 3), ("channels", 5 / 12)],  # of SmolLM2-135M's 134.5 million
    }
    found = [
        PruneSettings(structure, share, method, calibration)  # type: ignore[arg-type]
        for structure, share in wanted[part]
        for method in names(structure)  # type: ignore[arg-type]
        if not only or method in only
    ]
    return [replace(one, recovery=recovery) for one in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["sparse", "structured", "quarter"], default="structured")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--format", default="int8")
    parser.add_argument("--documents", type=int, default=64, help="rows of 512 tokens that pruners look at")
    parser.add_argument("--texts", type=int, default=40)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--threads", type=int, help="that serve; by default one per core")
    parser.add_argument("--recover", type=float, default=0.0)
    parser.add_argument("--methods", default="", help="only these, with commas")
    options = parser.parse_args()
    home = find_home().create()
    kept, told = get_kept(home, options.model), MeasureSettings(text_items=options.texts, task_items=options.questions)
    calibration = CalibrationSettings(options.documents, 512)
    recovery = RecoverySettings(minutes=options.recover)
    original = open_model(kept_source(home, kept), options.format, options.threads)
    ids = [token for text in read_texts(home)[:4] for token in original.tokenizer.encode(text.text)][: told.tokens + 1]

    def tell(what: str, done: int, total: int) -> None:
        if done in (0, total):
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)

    before, texts = quality(home, original, told, lambda: False, tell, lambda *_: None)
    table = [HEAD, ["as it is", "", "", "", f"{before.bits_per_byte:.4f}", f"{before.accuracy:.3f}", "", "", "1", "1"]]
    results = []
    for settings in rows_of(options.part, calibration, recovery, options.methods.split(",") if options.methods else []):
        key = digest_json([kept.digest, to_table(settings), to_table(told), options.format, options.threads])[:32]
        folder = home.tuning / f"bench-prune-{key}"
        path = home.tuning / "bench-prune" / f"{key}.json"
        if not path.exists():
            scratch, step = scratch_of(home, kept, folder), RecipeStep(settings)
            print(f"== {step}", file=sys.stderr, flush=True)
            reports: list[dict[str, object]] = []

            def put(candidate, _stopped, scratch=scratch, reports=reports):
                reports.append(dict(candidate.report))
                return put_candidate(scratch, candidate)

            made = step.make(scratch, kept, "tried", put, RunWatch(tell, say=lambda text: print(text, file=sys.stderr)))
            source = kept_source(scratch, made)
            model = open_model(source, options.format, options.threads)
            after, mine = quality(home, model, told, lambda: False, tell, lambda *_: None)
            info = read_pack(source.packs / options.format, source.digest)
            report = reports[0] if reports else {}
            figures = {
                "settings": to_table(settings), "quality": to_table(after), "loss": to_table(loss_of(texts, mine)), "mb": info.nbytes / 1e6,
                "pace": to_table(pace(model, original, ids, told)), "parameters": report.get("parameters"),
                "parameters_before": report.get("parameters_before"), "recovery": report.get("recovery"),
            }  # fmt: skip
            del model
            let_packs_go(scratch, made)
            write_atomic(path, json.dumps(figures).encode())
            shutil.rmtree(folder, ignore_errors=True)
        one = json.loads(path.read_bytes())
        results.append(one)
        loss, speed = one["loss"], one["pace"]
        table.append([
            settings.structure, f"{settings.share:.3g}", settings.pruner, f"{options.recover:g} min" if settings.recovery.wanted else "",
            f"{one['quality']['bits_per_byte']:.4f}, {loss['percent']:+.1f} % ({loss['low']:+.1f} … {loss['high']:+.1f})",
            f"{one['quality']['accuracy']:.3f}", f"{(one['parameters'] or 0) / 1e6:.1f}", f"{one['mb']:.0f}",
            f"{speed['speed']:.2f} ({speed['speed_low']:.2f} – {speed['speed_high']:.2f})", f"{speed['joules']:.2f}",
        ])  # fmt: skip
    show(f"{options.model}, {options.part}, served in {options.format}", table)
    finish("prune", {"part": options.part, "format": options.format, "before": to_table(before), "rows": results})


if __name__ == "__main__":
    main()
