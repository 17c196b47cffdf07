"""`ingle make train`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ingle.train.making import Made

EXAMPLES = """
ingle make train recipes/scratch/hybrid.toml --name little
ingle make train mine.toml --name mine --set model.layers=8 --set train.max_steps=500
ingle make train mine.toml --name mine --set 'data.sources=["letters/", "suite:debian-bits"]'
"""


def command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML file: model, tokenizer, data, train, judge.")],
    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, e.g. model.width=384.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the report to this file too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train a model from scratch: a transformer, a hybrid or an RNN.

    The new model continues plain text; it does not chat. Interrupted at any moment, the same command goes on.
    """
    from ingle.app.house import enter
    from ingle.cli.progress import watching
    from ingle.cli.training import recorder, run_watch
    from ingle.core.config import load_config
    from ingle.core.errors import ConfigError
    from ingle.core.files import need_learning
    from ingle.home.names import check_name

    need_learning()
    if not name:
        raise ConfigError("--name", "Say what to call the model", "", "For example --name little.")
    check_name(name)
    from ingle.scratch.scratch import scratch
    from ingle.scratch.scratch_settings import ScratchSettings

    settings = load_config(ScratchSettings, config, overrides or ())
    home = enter()
    command_line = shlex.join(["ingle", "make", "train", config.name, "--name", name, *(f"--set={one}" for one in overrides or ())])
    with watching() as watch:
        result = scratch(home, name, settings, run_watch(watch), command_line, recorder(home, "base", "judged"))
    if out is not None:
        from ingle.core.files import write_atomic
        from ingle.train.making import to_json

        write_atomic(out, to_json(result.report))
    _show(result, as_json)


def _show(result: "Made", as_json: bool) -> None:
    from ingle.cli.output import note, print_json, print_table
    from ingle.scratch.first_model import rows

    if as_json:
        print_json(dict(result.report))
        return
    print_table(("figure", "value", ""), rows(result.report))
    for text in result.report["notes"]:
        note(f"{text}.")
    print(f"Loss curve: {result.plot}")
    print(f'Go on with it: ingle "Once" {result.kept.name}')
