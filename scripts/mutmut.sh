#!/usr/bin/env bash
# Every small change of one module's code, by mutmut: is there a test that fails? Needs `make setup` before. The defects
# that are chosen by hand, one or more for each promise, are those of scripts/mutants.py (`make mutants`).
#   bash scripts/mutmut.sh                                    control/limits.py and control/stream.py, by their own tests
#   bash scripts/mutmut.sh control/trajectory.py tests/control/test_trajectory.py tests/control/test_gate.py
# Works on copies in outputs/mutmut; survivors are listed.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# = 0 ]; then
    for room in limits stream; do bash "$0" control/$room.py tests/control/test_$room.py; done
    exit
fi
module=aloha_runtime/$1; shift
tests=$(printf '"%s", ' "$@")
bin=$PWD/.venv/bin
[ -x "$bin/mutmut" ] || "$(command -v uv || echo "$bin/uv")" pip install -q --python "$bin/python" mutmut==3.8.1

copy=outputs/mutmut/$(basename "$module" .py)
rm -rf "$copy" && mkdir -p "$copy"
cp -r aloha_runtime tests pyproject.toml README.md "$copy"
cat >>"$copy/pyproject.toml" <<TOML

[tool.mutmut]
source_paths = ["$module"]
pytest_add_cli_args_test_selection = [$tests]
also_copy = ["aloha_runtime", "tests/control"]
TOML
cd "$copy"
"$bin/mutmut" run --max-children "$(nproc)" | tail -n 1
survivors=$("$bin/mutmut" results | awk -F: '/survived|timeout|suspicious|no tests/ {print $1}')
for mutant in $survivors; do
    "$bin/mutmut" show "$mutant" | grep -E '^[-+] ' || true
done
echo "$module: $("$bin/mutmut" results --all true | grep -c ": ") changes, $(wc -w <<<"$survivors") survivors"
