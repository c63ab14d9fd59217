"""`edge doctor`."""

import argparse
from dataclasses import asdict
from pathlib import Path

from edge.cli.output import note, print_json, print_table
from edge.errors import EdgeError

HELP = """\
On a device: look at everything containers need (control groups, kernel, clock, disks, Podman, the image service, the
fleet, the agent), and say what is wrong and what to do. Works whether the agent runs or not. Exit code 0 without a
problem, 1 with one; warnings are none."""
EXAMPLES = """\
examples:
  edge doctor
  edge doctor --fix                 do what is safe: load modules, start units, mend cmdline.txt
  edge doctor --output json | jq '.findings[] | select(.severity != "good")'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--config", type=Path, default=Path("/etc/edge/agent.toml"), metavar="FILE", help="agent.toml")
    parser.add_argument(
        "--fix", action="store_true", help="mend what can be without ending a container, and look once more"
    )


def run(args: argparse.Namespace) -> int:
    """Look, mend if asked to, and say."""
    from edge.doctor.findings import Finding, Severity  # noqa: PLC0415 - imported when it runs
    from edge.doctor.fixing import mend  # noqa: PLC0415
    from edge.doctor.judging import judge  # noqa: PLC0415
    from edge.doctor.reading import Device  # noqa: PLC0415

    device = Device(args.config)
    facts = device.facts()
    findings = judge(facts)
    fixes = list(dict.fromkeys(one.fix for one in findings if one.fix is not None)) if args.fix else []
    for fix in fixes:
        try:
            note(mend(fix, facts.kernel.cmdline_file))
        except EdgeError as error:
            note(f"{error} {error.hint}".strip())
    if fixes:
        findings = judge(device.facts())
    problems = sum(one.severity is Severity.PROBLEM for one in findings)
    if args.output == "json":
        print_json({"problems": problems, "findings": [asdict(one) for one in findings]})
        return 1 if problems else 0

    def row(one: Finding) -> tuple[str, ...]:
        return one.severity.value, one.about, f"{one.told}. {one.advice}" if one.advice else one.told

    print_table(("", "WHAT", "FOUND"), [row(one) for one in findings])
    if not args.fix and any(one.fix is not None for one in findings):
        note("`edge doctor --fix` mends some of it.")
    return 1 if problems else 0
