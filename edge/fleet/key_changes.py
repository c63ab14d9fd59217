"""What may change about a fleet's keys: functions from the present trust bundle to the next one's keys and roles."""

from collections.abc import Iterable, Mapping, Sequence

from edge.errors import InvalidInputError, NotFoundError, RefusedError
from edge.fleet.keyring import Change, KeyRecord
from edge.model.trust import BundleRole, Role, TrustBundle, bundle_key


def adding(name: str, roles: Sequence[Role]) -> Change:
    """Let a key sign for roles, beside those that may already."""

    def change(bundle: TrustBundle, keys: Mapping[str, KeyRecord]) -> TrustBundle:
        key = find_key(keys, name)
        changed = {
            role.value: BundleRole(
                key_ids=[*bundle.roles[role].key_ids, key.key_id] if role in bundle.roles else [key.key_id],
                threshold=bundle.roles[role].threshold if role in bundle.roles else 1,
            )
            for role in roles
        }
        return _with(bundle, bundle.roles | changed, keys.values())

    return change


def retiring(name: str) -> Change:
    """Take a key out of every role."""

    def change(bundle: TrustBundle, keys: Mapping[str, KeyRecord]) -> TrustBundle:
        return _with(bundle, _without(bundle.roles, find_key(keys, name)), keys.values())

    return change


def rotating(name: str, successor: str) -> Change:
    """Put a key into another's place, in every role."""

    def change(bundle: TrustBundle, keys: Mapping[str, KeyRecord]) -> TrustBundle:
        old, new = find_key(keys, name), find_key(keys, successor)
        roles = {
            role: BundleRole(
                key_ids=[new.key_id if key == old.key_id else key for key in rule.key_ids], threshold=rule.threshold
            )
            for role, rule in bundle.roles.items()
        }
        return _with(bundle, roles, keys.values())

    return change


def requiring(role: Role, threshold: int) -> Change:
    """Let so many keys be needed for a role."""

    def change(bundle: TrustBundle, keys: Mapping[str, KeyRecord]) -> TrustBundle:
        there = bundle.roles[role].key_ids
        if not 1 <= threshold <= len(there):
            raise InvalidInputError(
                f"{role.value} has {len(there)} keys: from 1 to {len(there)} of them can be required, not {threshold}",
                hint=f"Add one first: `edge fleet key add NAME --role {role.value}`.",
            )
        return _with(bundle, {**bundle.roles, role: BundleRole(key_ids=there, threshold=threshold)}, keys.values())

    return change


def find_key(keys: Mapping[str, KeyRecord], name: str) -> KeyRecord:
    """Return a key in force.

    Raises:
        NotFoundError: There is none of that name.
    """
    key = keys.get(name)
    if key is None or key.retired_at:
        raise NotFoundError(f"the fleet has no key {name} in force", hint="`edge fleet key ls` lists them.")
    return key


def _without(roles: Mapping[str, BundleRole], key: KeyRecord) -> dict[str, BundleRole]:
    left: dict[str, BundleRole] = {}
    for name, rule in roles.items():
        rest = [one for one in rule.key_ids if one != key.key_id]
        if len(rest) < rule.threshold:
            raise RefusedError(
                f"without {key.name} the role {name} would have {len(rest)} keys, and {rule.threshold} must sign",
                hint=f"Rotate it (`edge fleet key rotate {key.name} NEW`), or add a key or lower the threshold first.",
            )
        left[name] = BundleRole(key_ids=rest, threshold=rule.threshold)
    return left


def _with(bundle: TrustBundle, roles: Mapping[str, BundleRole], keys: Iterable[KeyRecord]) -> TrustBundle:
    """Return the bundle with these roles, and with the keys that they name."""
    named = {key for rule in roles.values() for key in rule.key_ids}
    written = {key.key_id: bundle_key(key.public) for key in keys if key.key_id in named}
    return bundle.model_copy(update={"roles": dict(roles), "keys": written})
