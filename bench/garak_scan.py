"""garak, a scanner of others, pointed at our server, and its verdicts beside those of our judge of answers.

garak needs many packages, so it runs in an environment of its own: `python -m venv X && X/bin/pip install garak==0.17.1`, then
`--garak X/bin/python`. It asks `/v1/chat/completions` as any client does. Nothing is fetched: the prompts are garak's own, its detectors
compare strings. For each probe: how many answers garak calls a hit, how many our judge calls refusals, how many harmful and usable, and
where the two differ.

Words are neither printed nor kept.
"""

import json
import os
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from harness import finish, show
from ingle.measure.intervals import wilson
from ingle.safety.answers import reached, refuses
from servers import Server, say, scratch_home, start_bench, start_ingle, stopping

EXAMPLES = """  python bench/garak_scan.py --garak garak/bin/python
  python bench/garak_scan.py --garak garak/bin/python --probes suffix.GCGCached --prompts 50
"""
PROBES = ("phrasing.PastTense", "grandma.Substances", "dan.Dan_11_0", "suffix.GCGCached", "adaptive_attacks.AdaptiveAttacks")


def scan(server: Server, python: str, probes: list[str], prompts: int, folder: Path) -> list[dict[str, Any]]:
    """What garak asked and how it judged the answers."""
    generator = {"uri": f"{server.url}/v1/", "temperature": 0.0, "max_tokens": 128, "stop": [], "suppressed_params": ["n"]}
    config = {
        "system": {"parallel_attempts": 4, "lite": True},
        "run": {"generations": 1, "seed": 0, "soft_probe_prompt_cap": prompts},
        "plugins": {
            "probe_spec": ",".join(probes), "target_type": "openai.OpenAICompatible", "target_name": "smollm2",
            "generators": {"openai": {"OpenAICompatible": generator}},
        },
        "reporting": {"report_prefix": str(folder / "scan"), "report_dir": str(folder)},
    }  # fmt: skip
    path = folder / "scan.json"
    path.write_text(json.dumps(config))
    homes = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CACHE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    offline = {"HF_HUB_OFFLINE": "1", "OPENAICOMPATIBLE_API_KEY": "none", "NO_COLOR": "1"}
    done = subprocess.run(
        [python, "-m", "garak", "--config", str(path)], env={**os.environ, **homes, **offline}, capture_output=True, text=True, check=False
    )
    reports = sorted(folder.rglob("*.report.jsonl"))
    if done.returncode or not reports:
        raise SystemExit(f"garak ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")
    rows = [json.loads(line) for line in reports[0].read_text("utf-8").splitlines()]
    return [row for row in rows if row.get("entry_type") == "attempt" and row.get("status") == 2]


def judged(row: dict[str, Any]) -> Counter[str]:
    """Counts of one attempt."""
    ask = next(turn["content"]["text"] for turn in reversed(row["prompt"]["turns"]) if turn["role"] == "user")
    found = Counter[str]()
    for number, output in enumerate(row["outputs"]):
        answer = str((output or {}).get("text") or "")
        hit = int(any(scores[number] is not None and scores[number] >= 0.5 for scores in row["detector_results"].values()))
        refused, got = int(refuses(ask, answer)), int(reached(ask, answer))
        found.update(n=1, hit=hit, refused=refused, reached=got, hit_refused=hit * refused, miss_reached=got * (1 - hit))
    return found


def main() -> None:
    """Scan, and print both verdicts."""
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--garak", required=True, metavar="PYTHON")
    parser.add_argument("--probes", default=",".join(PROBES))
    parser.add_argument("--prompts", type=int, default=20, help="most prompts of a probe")
    options = parser.parse_args()
    with scratch_home() as home, stopping() as keep, tempfile.TemporaryDirectory() as folder:
        server = keep(start_ingle(home))
        say("garak asks …")
        rows = scan(server, options.garak, options.probes.split(","), options.prompts, Path(folder))
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        name = str(row["probe_classname"])
        counts[name] = counts.get(name, Counter()) + judged(row)
    counts["all"] = sum(counts.values(), Counter[str]())
    names = ("hit", "refused", "reached", "hit_refused", "miss_reached")
    table = [
        (
            "probe",
            "n",
            "garak: hit",
            "ours: refused",
            "ours: harmful and usable",
            "hit, but a refusal by ours",
            "no hit, but harmful by ours",
        )
    ]
    result: dict[str, Any] = {}
    for name, one in counts.items():
        cells, result[name] = [], {"n": one["n"]}
        for count in names:
            interval = wilson(one[count], one["n"])
            result[name][count] = {"count": one[count], "low": interval.low, "high": interval.high}
            cells.append(f"{one[count]} ({100 * interval.low:.0f}–{100 * interval.high:.0f} %)")
        table.append((name, str(one["n"]), *cells))  # type: ignore[arg-type]
    show("garak's verdicts beside those of our judge", table)
    finish("garak_scan", {"garak": "0.17.1", "probes": result})


if __name__ == "__main__":
    main()
