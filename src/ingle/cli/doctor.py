"""`ingle home doctor`."""

from typing import Annotated

import typer

EXAMPLES = """
ingle home doctor
ingle home doctor --kernels --json   (for a bug report)
"""


def command(
    kernels: Annotated[bool, typer.Option("--kernels", help="Compile every kernel and test it: a minute or two.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Check this machine: what it has, what is missing, how to get it.

    Kernels are tested as far as they are compiled. Exit code 1 if something keeps Ingle from working here.
    """
    import sys
    import textwrap
    from shutil import get_terminal_size

    from ingle.app.house import enter
    from ingle.cli.examine import DoctorFinding, examine
    from ingle.cli.output import colourful, print_json, printable

    findings = list[DoctorFinding]()
    if as_json:
        findings += examine(enter(), kernels)
        print_json([{"about": f.about, "value": f.value, "state": f.state, "cure": f.cure} for f in findings])
    else:
        paint = colourful(sys.stdout)
        marks = {"ok": ("✓", "32"), "slow": ("!", "33"), "missing": ("–", "2"), "broken": ("✗", "31")}
        room = max(40, get_terminal_size().columns - 21) if paint else 10_000
        for finding in examine(enter(), kernels):
            findings.append(finding)
            mark, colour = marks[finding.state]
            sign = f"\x1b[{colour}m{mark}\x1b[0m" if paint else mark
            first, *rest = textwrap.wrap(printable(finding.value), room) or [""]
            print(f"{sign} {finding.about:<18} {first}", flush=True)
            for line in [*rest, *textwrap.wrap(printable(finding.cure), room)]:
                print(f"  {'':<18} {line}", flush=True)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)
