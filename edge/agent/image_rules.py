"""`[[policy.images]]` of the configuration: tables become rules, and the files they name are read."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edge.errors import EdgeError, InvalidInputError
from edge.model.image_trust.certificate import read_certificates
from edge.model.image_trust.keys import read_key
from edge.model.image_trust.policy import ANY, ImagePolicy, ImageRule, Requirement, scope_of

_MAXIMUM_FILE: Final = 64 * 1024
_KINDS: Final[Mapping[str, type]] = {
    "scope": str,
    "require": str,
    "keys": list,
    "fleet_keys": bool,
    "log_keys": list,
    "authorities": list,
    "identity": str,
    "issuer": str,
}
_OF_SIGNATURES: Final = tuple(name for name in _KINDS if name not in ("scope", "require"))
_KEYLESS: Final = ("log_keys", "identity", "issuer")
Problem = tuple[str, str]


def read_image_rules(tables: object, folder: Path, problems: list[Problem]) -> ImagePolicy:
    """Return the rules; what is wrong with them is added to `problems`, as `(key, message)`.

    Args:
        tables: As TOML has them.
        folder: What relative paths are relative to.
        problems: So far.
    """
    if not isinstance(tables, list | tuple) or not all(isinstance(one, dict) for one in tables):
        problems.append(("policy.images", "must be tables: [[policy.images]]"))
        return ImagePolicy()
    rules: list[ImageRule] = []
    for number, table in enumerate(tables):
        where = f"policy.images[{number}]"
        found = [(f"{where}.{name}", message) for name, message in _problems(table)]
        rule = None if found else _rule(table, folder, where, found)
        if rule is not None and any(scope_of(rule.scope) == scope_of(one.scope) for one in rules):
            found.append((f"{where}.scope", f"{rule.scope} has a rule already"))
        problems.extend(found)
        if rule is not None:
            rules.append(rule)
    return ImagePolicy(tuple(rules))


def _problems(table: Mapping[str, Any]) -> Iterator[Problem]:
    for name in table:
        if name not in _KINDS:
            yield name, f"there is no such key; there are {', '.join(_KINDS)}"
    for name, kind in _KINDS.items():
        value = table.get(name)
        texts = not isinstance(value, list) or all(isinstance(one, str) and one for one in value)
        if value is not None and (type(value) is not kind or not texts):
            yield name, f"must be {_NAMES[kind]}"
            return
    scope = table.get("scope", "")
    if scope != ANY and (not scope or any(one in scope for one in "@*? \t") or "://" in scope):
        yield "scope", 'must be a registry, a repository of one, or "*"'
    if table.get("require") not in list(Requirement):
        yield "require", f"must be one of {', '.join(Requirement)}"
    elif "signature" not in table["require"]:
        yield from ((name, "is only for a rule that requires a signature") for name in _OF_SIGNATURES if name in table)
    else:
        yield from _signer_problems(table)


def _signer_problems(table: Mapping[str, Any]) -> Iterator[Problem]:
    by_key = bool(table.get("keys") or table.get("fleet_keys"))
    if not table.get("authorities"):
        if not by_key:
            yield "keys", "who may sign is missing: keys, fleet_keys, or authorities with identity and issuer"
        yield from ((name, "is only for a rule with authorities") for name in ("identity", "issuer") if name in table)
    else:
        if by_key:
            yield "keys", "a rule with authorities takes no keys: a bare key must never stand for a certificate"
        yield from ((name, "is missing: a rule with authorities needs it") for name in _KEYLESS if not table.get(name))


def _rule(table: Mapping[str, Any], folder: Path, where: str, problems: list[Problem]) -> ImageRule:
    def files(name: str, check: Callable[[bytes], object]) -> tuple[bytes, ...]:
        read = []
        for text in table.get(name, ()):
            try:
                read.append(_read(folder / text, check))
            except EdgeError as error:
                problems.append((f"{where}.{name}", str(error)))
        return tuple(read)

    return ImageRule(
        scope=table["scope"],
        require=Requirement(table["require"]),
        keys=files("keys", read_key),
        fleet_keys=table.get("fleet_keys", False),
        log_keys=files("log_keys", read_key),
        authorities=files("authorities", read_certificates),
        identity=table.get("identity", ""),
        issuer=table.get("issuer", ""),
    )


def _read(path: Path, check: Callable[[bytes], object]) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAXIMUM_FILE + 1)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MAXIMUM_FILE:
        raise InvalidInputError(f"{path} is larger than {_MAXIMUM_FILE} bytes")
    try:
        check(data)
    except EdgeError as error:
        raise InvalidInputError(f"{path}: {error}") from error
    return data


_NAMES: Final = {str: "a text in quotes", bool: "true or false", list: "a list of paths"}
