"""`./dev sbom`: a software bill of materials of what a device runs (CycloneDX 1.5, JSON), from the locked versions.

Format: https://cyclonedx.org/docs/1.5/json/. The same lock and the same source give the same bytes: no time, no serial
number. Licences are what the installed packages state of themselves; a package that is not installed here has none.
"""

import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = ROOT / "requirements" / "device.txt"
_PACKAGE: Final = re.compile(r"^([a-z0-9-]+)==([^\s;\\]+)", re.MULTILINE)


def locked(text: str) -> dict[str, str]:
    """Return the packages of a lock: version by name."""
    return dict(_PACKAGE.findall(text))


def bill(text: str) -> dict[str, Any]:
    """Return the bill of materials for a lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = locked(text)
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": project["name"],
                "version": project["version"],
                "purl": own,
                "licenses": [{"expression": project["license"]}],
            }
        },
        "components": [_component(name, version) for name, version in sorted(packages.items())],
        "dependencies": [
            {"ref": own, "dependsOn": sorted(_reference(name, packages) for name in _names(project["dependencies"]))},
            *(
                {"ref": _reference(name, packages), "dependsOn": sorted(_needs(name, packages))}
                for name in sorted(packages)
            ),
        ],
    }


def _component(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version}"
    found: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    licence = _licence(name)
    return found | ({"licenses": [{"license": {"name": licence}}]} if licence else {})


def _licence(name: str) -> str:
    try:
        told = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    classified = [one for one in told.get_all("Classifier") or () if one.startswith("License ::")]
    stated = told.get_all("License-Expression") or told.get_all("License") or [""]
    return str(stated[0]).partition("\n")[0] or "".join(classified[:1]).rpartition(" :: ")[2]


def _names(requirements: list[str]) -> list[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", one) for one in requirements if "extra ==" not in one)
    return [re.sub(r"[._-]+", "-", one[0]).lower() for one in found if one]


def _needs(name: str, packages: dict[str, str]) -> set[str]:
    try:
        asked = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return set()
    return {_reference(one, packages) for one in _names(asked) if one in packages}


def _reference(name: str, packages: dict[str, str]) -> str:
    return f"pkg:pypi/{name}@{packages[name]}"


def main() -> int:
    """Write it to build/sbom.json."""
    target = ROOT / "build" / "sbom.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(bill(LOCK.read_text()), indent=2) + "\n")
    sys.stdout.write(f"{target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
