"""Proofs for strangers: what they cost in a large ledger, whether every change of a bundle is refused, and OpenSSF's own tool.

`cost`: a ledger of --facts facts, made here with real signatures; inclusion proofs of random ones; beside it the naive way, the whole tree
from all rows. Times are those of the clock, and of the processor alone, which other programs disturb less.
`mutations`: --mutations changed bundles, each verified by verify.py in a process of its own.
`official`: exports signed by us, verified by `model_signing` (--official PATH), as they are, with one bit flipped, with one file added.

python bench/proofs.py [--facts 1000000] [--mutations 1000] [--official PATH] [--part cost …]
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine

from harness import finish, show
from ingle.core.report import Event
from ingle.ethics.bundle import attest
from ingle.ethics.model_signature import sign_model, signature_of
from ingle.ethics.notary import Notary, notary
from ingle.home.database import open_database
from ingle.home.place import Home
from ingle.ledger.chain import Ledger
from ingle.ledger.head import Head, read_head, sign_head, start_head
from ingle.ledger.keys import load_ring, load_verifiers
from ingle.ledger.nodes import add_row, remade
from ingle.ledger.proof import consistency, extract, extract_table
from ingle.ledger.row import Row, facts_text, row_hash
from ingle.ledger.table import MIGRATIONS, PAGE_ROWS, appending, last_row, rows_from
from ingle.ledger.tree import Peaks, grown
from mutations import mutations

PARTS = ("cost", "mutations", "official")
PROGRAM = Path(__file__).parent.parent / "src" / "ingle" / "ethics" / "verify.py"
_INSERT = "INSERT INTO ledger VALUES (:seq, :at, :kind, :subject, :facts, :prev_hash, :hash, :signature)"
_AT = "2026-01-01T00:00:00.000000+00:00"


def opened(home: Home) -> Engine:
    """The home's database."""
    return open_database(home.database_url, {"ledger": MIGRATIONS})


def made(root: Path, facts: int) -> Home:
    """A home with a few facts, written as they always are."""
    home = Home(root).create()
    engine = opened(home)
    ledger = Ledger(engine, home.keys)
    for number in range(facts):
        ledger.append(_event(number))
    engine.dispose()
    return home


def _event(number: int) -> Event:
    digest = f"{number:064x}"
    facts = {
        "model": digest,
        "prompt_tokens": 30,
        "completion_tokens": 50,
        "finish": "stop",
        "seed": number,
        "request": digest,
        "answer": digest,
    }
    return Event("answer", "smollm2", facts | {"temperature": 0.3, "top_k": 40, "top_p": 0.9, "id": f"chatcmpl-{number:032x}"})


def grow(home: Home, facts: int) -> float:
    """Let a ledger grow to so many facts without a commit for each. Returns the processor's microseconds that the tree took for one."""
    engine, [signer] = opened(home), load_ring(home.keys).signers
    took, grew, waiting = 0.0, 0, list[dict[str, object]]()
    with appending(engine) as connection:
        last = last_row(connection)
        assert last is not None
        head = read_head(home.keys, [signer.verifier])
        assert head is not None
        peaks = remade(connection, head)
        assert peaks is not None
        for seq in range(last.seq + 1, facts + 1):
            event = _event(seq)
            text = facts_text(event)
            hashed = row_hash(seq, _AT, event.kind, event.subject, text, last.hash)
            last = Row(seq, _AT, event.kind, event.subject, text, last.hash, hashed, signer.sign(bytes.fromhex(hashed)))
            waiting.append({**asdict(last), "prev_hash": last.prev})
            if len(waiting) == PAGE_ROWS or seq == facts:
                connection.execute(sa.text(_INSERT), waiting)
                waiting.clear()
            began = time.process_time()
            peaks = add_row(connection, peaks, last)
            took += time.process_time() - began
            grew += 1
            if seq % 100_000 == 0:
                print(f"{seq:,} facts", file=sys.stderr)
    start_head(home.keys, sign_head(signer, last.seq, last.hash, peaks.root.hex()))
    engine.dispose()
    return took / max(grew, 1) * 1e6


def cost(root: Path, facts: int, tries: int) -> dict[str, Any]:
    """Sizes and times of proofs."""
    home = Home(root / "large") if (root / "large").exists() else made(root / "large", 3)
    tree_us = grow(home, facts)
    rng, rows, shared = random.Random(0), dict[str, list[float]](), opened(home)
    for number in range(tries):
        seq = rng.randrange(1, facts + 1)
        engine = opened(home)
        engine.connect().close()
        _time(rows, "proof, new connection", partial(extract, engine, home.keys, [seq]))
        engine.dispose()
        _time(rows, "proof, open connection", partial(extract, shared, home.keys, [seq]))
        _time(rows, "consistency", partial(consistency, shared, home.keys, seq))
        table = extract_table(extract(shared, home.keys, [seq]))
        [fact] = table["facts"]
        proof = {"seq": seq, "path": fact["path"], "head": table["head"]}
        rows.setdefault("proof (path and signed head), bytes", []).append(_bytes(proof))
        rows.setdefault("with the fact, bytes", []).append(_bytes(table))
        if number % 10 == 0:
            ledger = Ledger(shared, home.keys)
            _time(rows, "an event, first of a process", partial(ledger.append, _event(number)))
            _time(rows, "an event, later", partial(ledger.append, _event(number)))
    head = read_head(home.keys, load_verifiers(home.keys))
    assert head is not None
    _time(rows, "the whole tree from the rows, naive", partial(_naive, shared, head.root))
    _time(rows, "the tree made again and checked", partial(_remade, shared, head))
    shared.dispose()
    spreads = {name: {"median": statistics.median(of), "p99": _p99(of), "most": max(of)} for name, of in rows.items()}
    lines = [(name, *(f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}" for value in of.values())) for name, of in spreads.items()]
    show(f"{facts:,} facts, {tries} random ones", [("", "median", "99th percentile", "most"), *lines])
    if tree_us:
        print(f"the tree's part of an event: {tree_us:.1f} µs of the processor")
    return {"facts": facts, "tries": tries, **spreads, "tree_us_per_event": tree_us}


def _time(rows: dict[str, list[float]], name: str, act: Callable[[], object]) -> None:
    began, busy = time.perf_counter(), time.process_time()
    act()
    rows.setdefault(f"{name}, ms", []).append((time.perf_counter() - began) * 1000)
    rows.setdefault(f"{name}, ms of the processor", []).append((time.process_time() - busy) * 1000)


def _naive(engine: Engine, root: str) -> None:
    peaks, after = Peaks(), None
    while True:
        with engine.connect() as connection:
            rows = rows_from(connection, after, PAGE_ROWS)
        if not rows:
            break
        for row in rows:
            peaks, _ = grown(peaks, bytes.fromhex(row.hash))
        after = rows[-1].seq
    assert peaks.root.hex() == root


def _remade(engine: Engine, head: Head) -> None:
    with appending(engine) as connection:
        peaks = remade(connection, head)
    assert peaks is not None and peaks.root.hex() == head.root


def _bytes(table: object) -> int:
    return len(json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode())


def _p99(values: list[float]) -> float:
    return float(sorted(values)[int(0.99 * (len(values) - 1))])


def bundle(home: Home, out: Path, card: bytes) -> dict[str, bytes]:
    """A bundle's files."""
    engine = opened(home)
    attest(home, engine, (3, 5, 8), {"card.json": card}, out)
    engine.dispose()
    return {path.name: path.read_bytes() for path in out.iterdir()}


def verified(folder: Path, key: str) -> bool:
    """Output of a stranger's run of verify.py."""
    return subprocess.run([sys.executable, "-I", str(PROGRAM), str(folder), key], capture_output=True, check=False).returncode == 0


def mutated(root: Path, count: int, seed: int) -> dict[str, Any]:
    """How many changed bundles are refused."""
    home, other = made(root / "home", 12), made(root / "other", 12)
    older = bundle(home, root / "older", b'{"bits": 1.25}')
    files = bundle(home, root / "bundle", b'{"bits": 1.24}')
    stranger = bundle(other, root / "stranger", b'{"bits": 1.24}')
    head = read_head(home.keys, load_verifiers(home.keys))
    assert head is not None and verified(root / "bundle", head.fingerprint) and verified(root / "older", head.fingerprint)
    tried, accepted = Counter[str](), Counter[str]()
    for what, changed in islice(mutations(files, older, stranger, seed), count):
        folder = root / "changed"
        folder.mkdir()
        for name, data in changed.items():
            (folder / name).write_bytes(data)
        tried[what] += 1
        accepted[what] += verified(folder, head.fingerprint)
        shutil.rmtree(folder)
    show("mutations", [("", "tried", "refused"), *((what, number, number - accepted[what]) for what, number in tried.items())])
    print(f"in all: {count - accepted.total():,} of {count:,} refused")
    return {"tried": dict(tried), "accepted": {what: number for what, number in accepted.items() if number}}


def official(root: Path, tool: str, count: int, seed: int) -> dict[str, Any]:
    """How many signed folders OpenSSF's tool accepts, and how many changed ones."""
    home, rng, found = made(root / "signing", 1), random.Random(seed), Counter[str]()
    engine = opened(home)
    signer = notary(home, Ledger(engine, home.keys))
    engine.dispose()
    for number in range(count):
        for what, folder in _folders(root / f"model{number}", signer, rng):
            signature, public = signature_of(folder)
            command = [tool, "verify", "key", str(folder), "--signature", str(signature), "--public_key", str(public)]
            found[what] += subprocess.run(command, capture_output=True, check=False).returncode == 0
    rest = f"{found['edited']} with a flipped bit, {found['added']} with a file more"
    print(f"{tool}: of {count} signed folders {found['as signed']} accepted, {rest}")
    return {"folders": count, **found}


def _folders(folder: Path, signer: Notary, rng: random.Random) -> Iterator[tuple[str, Path]]:
    folder.mkdir()
    names = ["config.json", "model.safetensors", *(f"part-{number}.bin" for number in range(rng.randrange(4)))]
    for name in names:
        (folder / name).write_bytes(rng.randbytes(rng.randrange(1, 50_000)))
    sign_model(folder, signer)
    yield "as signed", folder
    path = folder / rng.choice(names)
    whole, data = path.read_bytes(), bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    yield "edited", folder
    path.write_bytes(whole)
    (folder / f"new{rng.randrange(99)}").write_bytes(b"")
    yield "added", folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=1_000_000)
    parser.add_argument("--tries", type=int, default=300)
    parser.add_argument("--mutations", type=int, default=1_000)
    parser.add_argument("--folders", type=int, default=10)
    parser.add_argument("--official", default=shutil.which("model_signing") or "", help="path of model_signing")
    parser.add_argument("--large", type=Path, help="folder of the large ledger, which is then kept and used again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", action="append", choices=PARTS)
    options = parser.parse_args()
    parts, result = options.part or PARTS, dict[str, Any]()
    with tempfile.TemporaryDirectory(prefix="ingle-proofs-") as folder:
        if "mutations" in parts:
            result["mutations"] = mutated(Path(folder), options.mutations, options.seed)
        if "official" in parts and options.official:
            result["official"] = official(Path(folder), options.official, options.folders, options.seed)
        if "cost" in parts:
            result["cost"] = cost(options.large or Path(folder), options.facts, options.tries)
    finish("proofs", result)


if __name__ == "__main__":
    main()
