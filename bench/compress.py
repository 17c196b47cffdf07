"""What a search finds: `ingle make compress` as people call it, from the home that INGLE_HOME names (an empty one will do), for each goal.

    INGLE_HOME=/somewhere/empty python bench/compress.py --quality-loss 1% --goals joules
    python bench/compress.py --quality-loss 5% --recover 30 --goals joules,size,speed

The first goal does the work; the others look at what is known. Interrupted, the same command goes on where it was.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from harness import finish, show

HEAD = ["recipe", "bits per byte", "loss", "right", "J/token, ×", "MB", "tokens/s, ×", ""]


def search(options: argparse.Namespace, goal: str) -> dict[str, Any]:
    """One search: what it printed, or why it found nothing."""
    command = [sys.executable, "-m", "ingle", "compress", options.model, "--quality-loss", options.quality_loss, "--for", goal, "--json"]
    command += ["--name", f"bench-{goal}", *(["--recover", str(options.recover)] if options.recover else []), *options.more]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE if options.quiet else None, text=True, check=False)
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout)
        return found
    if done.returncode == 130:
        raise SystemExit("interrupted; the same command goes on from there")
    return {"error": done.returncode, "said": (done.stderr or "").strip().splitlines()[-1:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--quality-loss", default="1%")
    parser.add_argument("--goals", default="joules,size,speed")
    parser.add_argument("--recover", type=float, default=0.0)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("more", nargs="*", help="further options of `ingle make compress`, after --")
    options = parser.parse_args()
    results = dict[str, Any]()
    for goal in options.goals.split(","):
        found = results[goal] = search(options, goal)
        rows = [HEAD]
        for point in found.get("points", ()):  # none where it failed
            pace, loss, quality = point["pace"], point["loss"], point["quality"]
            kind = "chosen" if point["recipe"] == found["chosen"]["recipe"] else "front" if point["recipe"] in found["front"] else ""
            rows.append([
                point["recipe"] or "as it is", f"{quality['bits_per_byte']:.4f}",
                f"{loss['percent']:+.2f} % ({loss['low']:+.2f} … {loss['high']:+.2f})", f"{quality.get('accuracy', 0):.3f}",
                f"{pace['joules']:.2f}", f"{point['mb']:.1f}",
                f"{pace['speed']:.2f} ({pace['speed_low']:.2f} – {pace['speed_high']:.2f})", kind,
            ])  # fmt: skip
        show(f"{options.model} for {goal}, at most {options.quality_loss}" + (f": {found['said']}" if "error" in found else ""), rows)
    finish("compress", {"model": options.model, "quality_loss": options.quality_loss, "goals": results})


if __name__ == "__main__":
    main()
