"""`ingle pull`."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.home.catalogue import Archived

EXAMPLES = """
ingle pull   (lists known models: licence, size, memory, and the speed predicted for this machine)
ingle pull smollm2
ingle pull qwen3-1.7b --lean   (on the disk once, as it is served)
ingle pull smollm2-hybrid   (for long texts: smollm2 with a sixth of the memory per conversation; see docs/hybrid.md)
ingle pull HuggingFaceTB/SmolLM2-360M-Instruct --name smol360
ingle pull ./my-model.Q4_1.gguf --name mine
ingle pull hearing   (what `ingle hear` needs; also: voice, kokoro)
ingle pull guard   (a model that judges requests and answers; see docs/safety.md)
ingle pull sight   (smollm2+sight, which sees pictures: ingle see photo.jpg)
ingle pull smollm2 --format int8   (also make the 8-bit weights ready)
ingle pull ./letters-peft --onto smollm2 --name letters   (an adapter of the PEFT library, as smollm2+letters)
"""


_GUARDS = 'Let it judge: [guards.harm] by = "both" and model = "{name}" in policy.toml (docs/safety.md)'
# Commands to try first with an ability.
_NEXT = {"sight": "Show it a picture: ingle see FILE --model {name}", "painter": 'Let it draw: ingle draw "a red apple" {name}'}
_LARGE = 1_000_000_000  # bytes of a file from which on it is said how to store it once


def command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[WHAT]",
            help="A known name (hearing, voice, … too), a hub repository (org/name[/file.gguf][@revision]), a folder, or a .gguf file; "
            "without one, known models are listed.",
        ),
    ] = "",
    name: Annotated[str | None, typer.Option(help="What to call it here; by default its own name.")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="Weights to make ready: auto (as in the file), int4, int8, bf16, fp32.")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Ask for the newest version, and move the name to it.")] = False,
    onto: Annotated[str | None, typer.Option(metavar="MODEL", help="WHAT is a folder of the PEFT library: keep it as MODEL+NAME.")] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Pull a known model that is too large for this memory; with --onto: even if the gate refuses it."),
    ] = False,
    lean: Annotated[
        bool | None,
        typer.Option("--lean/--no-lean", help="Keep a GGUF file on the disk once, as it is served: see ingle lean.", show_default=False),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", metavar="KEY=VALUE", help="With --onto: set any limit of the gate.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Without WHAT: measure this machine's speed again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    attached: Annotated[bool, typer.Option("--attached", hidden=True, help="Started by a server, which reads the progress.")] = False,
) -> None:
    """Download a model, check it and make it ready; or list models.

    If the download breaks off, the same command goes on from there. An adapter (--onto) passes the gate first.
    """
    if not what:
        _list(as_json, measure, {"--name": name, "--format": format_, "--update": update, "--onto": onto})
    elif onto is not None:
        _adapter(what, onto, name, policy, force, as_json)
    elif attached:
        from ingle.cli.attached import attached_pull

        attached_pull(what, force, lean)
    else:
        _model(what, name, {"chat.format": format_, "pull.lean": lean}, update, force, as_json)


def _list(as_json: bool, again: bool, others: dict[str, object]) -> None:
    """List known models. Raises ConfigError for options that want a model."""
    from ingle.cli.offers import list_offers
    from ingle.core.errors import ConfigError

    for option, value in others.items():
        if value:
            raise ConfigError("WHAT", f"is missing: {option} is about one model", "", "`ingle pull` alone lists what can be pulled.")
    list_offers(as_json, again)


def _model(what: str, name: str | None, options: dict[str, object], update: bool, force: bool, as_json: bool) -> None:
    """Keep a model, or the parts of that name."""
    import time

    from ingle.home.catalogue import SHIPPED, parts_called

    if what not in SHIPPED and (parts := parts_called(what)):
        _parts(parts, as_json)
        return
    from ingle.app.bringing import bring, lay_lean
    from ingle.app.house import enter
    from ingle.app.settings import read_settings
    from ingle.cli.output import print_json
    from ingle.cli.progress import watching
    from ingle.core.errors import size
    from ingle.home.catalogue import GUARD_MODELS, ON_HUB
    from ingle.home.lean import is_lean

    home = enter()
    settings = read_settings(home, options=options)
    start = time.monotonic()
    with watching() as watch:
        if what in ON_HUB:
            from ingle.engine.bandwidth import check_room

            check_room(home, what, force, watch.say)
        brought = bring(home, what, watch, name, settings.chat.format, update)
        if settings.pull.lean:
            lay_lean(home, brought, watch)
    base, lean = brought.base, is_lean(home.base_folder(brought.base.digest))
    if as_json:
        keys = {"name": brought.kept.name, "base": base.digest, "already": brought.already, "source": base.source}
        rest = {"revision": base.revision, "licence": base.licence, "bytes": base.nbytes}
        packed = {"format": brought.format, "packed_bytes": brought.packed_bytes, "model_digest": brought.model_digest}
        packed |= {"lean": lean}
        print_json(keys | rest | packed | {"seconds": round(time.monotonic() - start, 2)})
        return
    verb = "was kept already" if brought.already else "is kept"
    print(f"{brought.kept.name} {verb}: {size(base.nbytes)} from {base.source}, ready in format {brought.format}.")
    if base.nbytes > _LARGE and not lean and all(file.name.endswith(".gguf") for file in base.files):
        print(f"On the disk it takes twice that; `ingle lean {brought.kept.name}` halves it.")
    print(_NEXT.get(what, _GUARDS if what in GUARD_MODELS else "Talk with it: ingle chat {name}").format(name=brought.kept.name))


def _parts(parts: "tuple[Archived, ...]", as_json: bool) -> None:
    """Keep ears, voices or eyes."""
    from ingle.app.bringing import bring_part
    from ingle.app.house import enter
    from ingle.cli.output import print_json
    from ingle.cli.progress import watching
    from ingle.core.errors import size

    home, tables = enter(), list[dict[str, object]]()
    with watching() as watch:
        for part in parts:
            base, already = bring_part(home, part, watch)
            if not as_json:
                print(f"{part.name} {'was kept already' if already else 'is kept'}: {part.title}. {size(base.nbytes)}, {base.licence}.")
            keys = {"name": part.name, "base": base.digest, "already": already, "source": base.source}
            tables.append(keys | {"revision": base.revision, "licence": base.licence, "bytes": base.nbytes})
    if as_json:
        print_json(tables)


def _adapter(what: str, onto: str, name: str | None, policy: list[str] | None, force: bool, as_json: bool) -> None:
    """Keep a folder of the PEFT library as a delta."""
    from pathlib import Path

    from ingle.app.house import House, enter
    from ingle.app.making import read_policy, run_watch, way_in
    from ingle.cli.output import print_json
    from ingle.cli.progress import watching
    from ingle.home.source import LocalSource, default_name
    from ingle.tuning.peft_files import bring_peft

    house, folder = House(enter()), Path(what).expanduser()
    kept, rules = house.model(onto), read_policy(house.home, policy or ())
    with watching() as house.watch:
        admit = way_in(house, kept, "import", rules, force)
        called = name or default_name(LocalSource(folder.absolute()))
        delta = bring_peft(house.home, kept, folder, called, admit, run_watch(house.watch), house.record).delta
    if as_json:
        print_json({"name": f"{kept.name}+{delta.name}", "kind": delta.kind, "delta": delta.digest, "base": delta.base_digest})
        return
    print(f"{kept.name}+{delta.name} is kept: {delta.kind}, {len(delta.tensors)} tensors.")
    print(f"Talk with it: ingle chat {kept.name}+{delta.name}")
