#!/usr/bin/env bash
# Installs what building and testing need beside a Rust toolchain: Debian packages and rustfmt, clippy.
# Says nothing and takes no time when all is there; says what is missing where it may not install.
set -euo pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# command=package; the tests start these servers themselves, on loopback ports of their own.
needs=(cc=build-essential bwrap=bubblewrap faketime=faketime inspircd=inspircd atheme-services=atheme-services openssl=openssl
  systemd-analyze=systemd)

missing=()
for need in "${needs[@]}"; do
  command -v "${need%%=*}" >/dev/null || missing+=("${need#*=}")
done

components=()
for tool in rustfmt clippy; do
  command -v "cargo-${tool/rustfmt/fmt}" >/dev/null && continue
  components+=("$tool")
done
if [ ${#components[@]} -gt 0 ] && command -v rustup >/dev/null; then
  rustup component add "${components[@]}" || echo "not installed: ${components[*]}" >&2
fi

[ ${#missing[@]} -gt 0 ] || exit 0
leave() { echo "missing packages: ${missing[*]} ($1); tests that need them say so" >&2; exit 0; }

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null && sudo -n true 2>/dev/null || leave "neither root nor sudo without a password"
  as_root=(sudo)
fi
command -v apt-get >/dev/null || leave "no apt-get"

# A server that is installed for tests must not start as a service of this machine.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
  "${as_root[@]}" chmod 755 $policy
  trap '"${as_root[@]}" rm -f $policy' EXIT
fi
install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o DPkg::Lock::Timeout=300 "${missing[@]}"
}
# Package lists may be absent or old: fetch them only then.
if ! install >/dev/null 2>&1; then
  "${as_root[@]}" apt-get update -qq -o DPkg::Lock::Timeout=300 || leave "apt-get update failed"
  install || leave "apt-get install failed"
fi
