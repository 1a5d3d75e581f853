"""Known vulnerabilities of the pinned packages, by pip-audit in an environment of its own: `python scripts/audit.py`.

Exit code 1 for a vulnerability that `ACCEPTED` does not name. Where no advisory database can be reached it says so and
passes; with AUDIT=required in the environment that fails, too.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv-audit"
PIP_AUDIT = "pip-audit==2.10.1"
SERVICES = ("pypi", "osv")
TIMEOUT_S = 300

ACCEPTED: dict[str, str] = {}
"""Advisory -> why it does not matter here."""


def main() -> int:
    failures = []
    for service in SERVICES:
        report, trouble = ask(service)
        if report is None:
            failures.append(f"{service}: {trouble}")
            continue
        found, unknown = judge(report)
        for line in found:
            print(line)
        if found:
            return 1
        if not unknown:
            print(f"audit: no known vulnerability in {len(report['dependencies'])} packages ({service})")
            return 0
        failures.append(
            f"{service} does not know {len(unknown)} of {len(report['dependencies'])} packages: {unknown[0]}"
        )
    print(f"audit: NOT DONE: {'; '.join(failures)}")
    return int(os.environ.get("AUDIT") == "required")


def judge(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What pip-audit found: a line for each vulnerability that is not accepted, and why packages were not looked up."""
    found, unknown = [], []
    for package in report["dependencies"]:
        if "skip_reason" in package:
            unknown.append(package["skip_reason"])
        for advisory in package.get("vulns", ()):
            if not {advisory["id"], *advisory.get("aliases", ())} & ACCEPTED.keys():
                fixed = ", ".join(advisory.get("fix_versions", ())) or "no version"
                found.append(f"{package['name']} {package['version']}: {advisory['id']}, mended in {fixed}")
    return found, unknown


def ask(service: str) -> tuple[dict[str, Any] | None, str]:
    """pip-audit's report on `requirements.txt`, or why there is none."""
    pip_audit = VENV / "bin/pip-audit"
    try:
        if not pip_audit.exists():
            uv = shutil.which("uv") or str(ROOT / ".venv/bin/uv")
            subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(VENV)], check=True)
            subprocess.run([uv, "pip", "install", "-q", "--python", str(VENV / "bin/python"), PIP_AUDIT], check=True)
        words = ["--format", "json", "--vulnerability-service", service, "--progress-spinner", "off", "--disable-pip"]
        command = [str(pip_audit), *words, "--require-hashes", "-r", str(ROOT / "requirements.txt")]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        return None, str(error)
    try:
        report: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        return None, (result.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
    return report, ""


if __name__ == "__main__":
    sys.exit(main())
