"""`edge image verify`."""

import argparse
from pathlib import Path

from edge.cli.image_index import registry_client
from edge.cli.output import print_fields, print_json
from edge.errors import EdgeError, InvalidInputError, RefusedError, TrustError
from edge.model.image_trust.policy import ImageRule, Requirement

HELP = """\
Hold an image's signatures against what a device demands: the rules of its agent.toml (--config), or a rule given here.
Exit code 0 when the image would run, 5 when it would be refused, with the reason."""
EXAMPLES = """\
examples:
  edge image verify registry.example/app:1 --config /etc/edge/agent.toml
  edge image verify registry.example/app:1 --key cosign.pub
  edge image verify ghcr.io/acme/app:1 --authority fulcio.pem --log-key rekor.pub \\
      --identity builder@acme.example --issuer https://accounts.example"""
_SECONDS = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="IMAGE", help="a full reference: registry.example/app:1")
    parser.add_argument("--architecture", default="", metavar="ARCH", help="as OCI names it; default: this machine's")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the device's agent.toml: its rules and its keys")
    files = (
        ("--key", "a public key (PEM) that may have signed; may be repeated"),
        ("--log-key", "a transparency log's public key (PEM); may be repeated"),
        ("--authority", "an authority's certificates (PEM) for keyless signatures; may be repeated"),
    )
    for name, words in files:
        parser.add_argument(name, action="append", default=[], type=Path, metavar="FILE", help=words)
    parser.add_argument("--identity", default="", help="the name in a keyless signer's certificate")
    parser.add_argument("--issuer", default="", help="who vouched for it")


def run(args: argparse.Namespace) -> int:
    """Fetch, and judge."""
    from edge.images.oci.documents import host_architecture  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.references import parse_reference  # noqa: PLC0415
    from edge.images.signatures import gather  # noqa: PLC0415
    from edge.model.image_trust.verify import prove  # noqa: PLC0415

    rule, fleet_keys = _rule(args)
    reference = parse_reference(args.image)
    found = gather(registry_client(), reference, args.architecture or host_architecture(), _SECONDS)
    told = {"image": args.image, "rule": rule.scope, "require": rule.require.value, "digest": found.digests[0]}
    if rule.wants_signature:
        try:
            proven = prove(found, rule, fleet_keys, args.image)
        except TrustError as error:
            hint = "docs/image-trust.md has what each reason means."
            raise RefusedError(f"{args.image}: {error}", hint=hint) from error
        told |= {"digest": proven.digest, "imageId": proven.image_id, "signedBy": proven.signer}
    if args.output == "json":
        print_json(told)
    else:
        print_fields(list(told.items()))
    return 0


def _rule(args: argparse.Namespace) -> tuple[ImageRule, tuple[bytes, ...]]:
    if args.config is not None:
        from edge.agent.config import load_config  # noqa: PLC0415 - imported when it runs
        from edge.agent.trust_file import load_trust  # noqa: PLC0415

        config = load_config(args.config)
        if problem := config.policy.images.problem(args.image):
            raise RefusedError(f"the device's policy does not allow {problem}")
        return config.policy.images.rule_for(args.image), load_trust(config.trust_bundle).image_keys()
    rule = ImageRule(
        "*",
        Requirement.SIGNATURE,
        keys=_read(args.key),
        log_keys=_read(args.log_key),
        authorities=_read(args.authority),
        identity=args.identity,
        issuer=args.issuer,
    )
    if bool(rule.keys) == bool(rule.authorities):
        raise InvalidInputError("who may have signed is missing", hint="Give --config, --key, or --authority.")
    if rule.authorities and not (rule.identity and rule.issuer and rule.log_keys):
        raise InvalidInputError("--authority needs --identity, --issuer and --log-key")
    return rule, ()


def _read(paths: list[Path]) -> tuple[bytes, ...]:
    try:
        return tuple(path.read_bytes() for path in paths)
    except OSError as error:
        raise EdgeError(f"cannot read {error.filename}: {error.strerror}") from error
