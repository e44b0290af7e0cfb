#!/usr/bin/env bash
# Tries unmodified clients and servers against the real binary: bash tests/real/run.sh [path-to-keygate-binary] [pytest arguments]
# Installs what is missing (Debian packages as root; Python and npm packages into target/real) and runs pytest.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$repo/target}
cache=$target/real
mkdir -p "$cache"

say() { printf 'real: %s\n' "$*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

# Programs that come as Debian packages.
packages=()
has python3 || packages+=(python3)
python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
has node || packages+=(nodejs)
has npm || packages+=(npm)
has curl || packages+=(curl)
has openssl || packages+=(openssl)
[ -x /usr/bin/prometheus ] || packages+=(prometheus)
[ -x /usr/bin/chromium ] || packages+=(chromium)
[ -x /usr/bin/chromedriver ] || packages+=(chromium-driver)
if [ ${#packages[@]} -gt 0 ]; then
  if ! has apt-get || [ "$(id -u)" != 0 ]; then
    say "missing: ${packages[*]}; install them, or run this as root on Debian or Ubuntu"
    exit 1
  fi
  say "installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >"$cache/apt.log" 2>&1 || { cat "$cache/apt.log" >&2; exit 1; }
  wanted=()
  for package in "${packages[@]}"; do
    # Ubuntu has Chromium as a snap only: the browser's tests say that they were skipped.
    case $package in chromium*) [ -n "$(apt-cache policy "$package" | sed -n 's/^ *Candidate: *//p' | grep -v none)" ] || continue ;; esac
    wanted+=("$package")
  done
  # No service of these packages may start: the tests start what they need themselves, on ports of their own.
  policy=/usr/sbin/policy-rc.d
  made_policy=
  if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made_policy=1; fi
  installed=0
  apt-get install -y -q --no-install-recommends "${wanted[@]}" >>"$cache/apt.log" 2>&1 || installed=$?
  [ -z "$made_policy" ] || rm -f $policy
  [ "$installed" = 0 ] || { tail -n 40 "$cache/apt.log" >&2; exit 1; }
fi
if [ ! -x /usr/bin/chromium ] || [ ! -x /usr/bin/chromedriver ]; then export KEYGATE_NO_BROWSER=1; fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { say "Python 3.11 or newer is needed"; exit 1; }

# Python packages, once for each list and interpreter.
stamp=$( (cat "$here/requirements.txt"; python3 -VV; command -v python3) | sha256sum | cut -c1-16)
venv=$cache/venv
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
  say "installing Python packages"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$here/requirements.txt"
  echo "$stamp" >"$venv/stamp"
fi

# npm packages, once for each lock file.
stamp=$(cat "$here/package.json" "$here/package-lock.json" | sha256sum | cut -c1-16)
node=$cache/node
if [ "$(cat "$node/stamp" 2>/dev/null)" != "$stamp" ]; then
  say "installing npm packages"
  rm -rf "$node" && mkdir -p "$node"
  cp "$here/package.json" "$here/package-lock.json" "$node/"
  (cd "$node" && npm ci --silent --no-audit --no-fund --ignore-scripts)
  echo "$stamp" >"$node/stamp"
fi

if [ $# -gt 0 ] && [ -f "$1" ] && [ -x "$1" ]; then
  binary=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
  shift
else
  (cd "$repo" && cargo build -q)
  binary=$target/debug/keygate
fi

cd "$here"
export KEYGATE_BINARY=$binary KEYGATE_REAL_NODE=$node PYTHONDONTWRITEBYTECODE=1
# Nothing here may go out: every address is on loopback.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy
exec timeout --kill-after=30 900 "$venv/bin/python" -m pytest -p no:cacheprovider "$@"
