#!/bin/sh
# The demo: a whole study on real proxies. Called by `make demo` with .venv/bin on PATH.
set -eu
out=demo-study
study=studies/quickstart.yaml
meshwise doctor --short
if meshwise proxies path linkerd >/dev/null 2>&1; then
  study=studies/quickstart-meshes.yaml
else
  echo "Without linkerd2-proxy the demo measures Istio alone."
fi
rm -rf "$out"
echo "meshwise run $study --out $out"
meshwise run "$study" --out "$out"
meshwise analyze "$out" --quiet
meshwise report "$out"
