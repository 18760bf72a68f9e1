#!/usr/bin/env bash
# Every benchmark that a GPU changes, in under eight minutes, as one Markdown table with card, versions and date:
#
#     benchmarks/gpu.sh [--device cuda] [--quick] [--output FILE]
#
# A part that fails is a row and not the end. `--device cpu --quick` does the same without a GPU.
# What the parts print becomes the rows; PYTHON names the interpreter.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python} device=cuda quick="" output=""
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=${2:?"--device: expected cuda or cpu"} && shift 2 ;;
    --quick) quick=--quick && shift ;;
    --output) output=${2:?"--output: expected a file"} && shift 2 ;;
    *) echo "$1: unknown; expected --device cuda|cpu, --quick, --output FILE" >&2 && exit 2 ;;
  esac
done
output=${output:-benchmarks/results/${device%%:*}${quick:+-quick}.md}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 # a part that is ended has printed its rows
limit=115 # seconds of a part: four of them stay under eight minutes
said=$(mktemp) && trap 'rm -f "$said"' EXIT

machine() {
  "$python" - "$device" <<'PY'
import platform, sys
from pathlib import Path
import monai, torch, modelsgenesis

device = sys.argv[1]
if device.startswith("cuda"):
    if not torch.cuda.is_available():
        sys.exit("there is no CUDA device; use --device cpu")
    card = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
else:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    card = f"{name}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
print(f"{card}; modelsgenesis {modelsgenesis.__version__}, PyTorch {torch.__version__}, MONAI {monai.__version__}")
PY
}

about=$(machine) || exit 1 # it said why
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1)
{
  echo "# \`benchmarks/gpu.sh --device $device${quick:+ $quick}\`"
  echo
  echo "$about${driver:+, driver $driver}; $(date -u +%Y-%m-%d)."
  echo
  echo "| part | what it printed |"
  echo "|---|---|"
} >"$output"
for part in pretext training finetuning inference; do
  began=$SECONDS
  # shellcheck disable=SC2086
  timeout "$limit" "$python" "benchmarks/$part.py" --device "$device" $quick >"$said" 2>"$said.errors"
  status=$?
  # Pipes would end a cell; what a part printed before it failed still counts.
  sed -e 's/[[:space:]]*$//' -e '/^$/d' -e 's/^[[:space:]]*//' -e 's/|/\\|/g' -e "s/^/| $part | /" -e 's/$/ |/' "$said" >>"$output"
  if [ $status -eq 124 ]; then
    echo "| $part | **not finished** within $limit s |" >>"$output"
  elif [ $status -ne 0 ]; then
    echo "| $part | **failed**, status $status: $(tail -n 1 "$said.errors" | tr '|' '/' | cut -c 1-300) |" >>"$output"
  fi
  echo "$part: status $status, $((SECONDS - began)) s" >&2
  rm -f "$said.errors"
done
echo "$output: $SECONDS s in all" >&2
cat "$output"
