#!/usr/bin/env bash
# Installs the Debian packages that the tests use, if they are missing and this may be done.
set -euo pipefail

declare -A needs=([bwrap]=bubblewrap [inspircd]=inspircd [atheme-services]=atheme-services [openssl]=openssl [systemd-analyze]=systemd)
missing=()
for command in "${!needs[@]}"; do
  command -v "$command" >/dev/null || missing+=("${needs[$command]}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=""
if [ "$(id -u)" != 0 ]; then
  if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
    echo "not installed (neither root nor sudo): ${missing[*]}; the tests that need them will say so" >&2
    exit 0
  fi
  sudo=sudo
fi
command -v apt-get >/dev/null || { echo "no apt-get; please install: ${missing[*]}" >&2; exit 0; }
# Test servers are started by the tests themselves, never as services.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"
