#!/usr/bin/env bash
# Mutation test of one module: every small change of its code must make a test fail. Needs `make setup` before.
#   bash scripts/mutants.sh                                          control/limits.py, judged by its own tests
#   bash scripts/mutants.sh control/stream.py tests/control/test_gate.py
# Works on a copy in outputs/mutants; survivors are listed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
module=aloha_runtime/${1:-control/limits.py}
tests=${2:-tests/control/test_limits.py}
bin=$PWD/.venv/bin
[ -x "$bin/mutmut" ] || "$bin/python" -m pip install --quiet mutmut==3.8.1

copy=outputs/mutants/$(basename "$module" .py)
rm -rf "$copy" && mkdir -p "$copy"
cp -r aloha_runtime tests pyproject.toml README.md "$copy"
cat >>"$copy/pyproject.toml" <<TOML

[tool.mutmut]
source_paths = ["$module"]
pytest_add_cli_args_test_selection = ["$tests"]
also_copy = ["aloha_runtime", "tests/control"]
TOML
cd "$copy"
"$bin/mutmut" run --max-children "$(nproc)" | tail -n 1
survivors=$("$bin/mutmut" results | awk -F: '/survived|timeout|suspicious|no tests/ {print $1}')
for mutant in $survivors; do
    "$bin/mutmut" show "$mutant" | grep -E '^[-+] ' || true
done
echo "survivors: $(wc -w <<<"$survivors")"
