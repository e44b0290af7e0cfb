#!/usr/bin/env bash
# From a bare Debian 12 or Ubuntu to a running gate: installs what is missing, builds, and starts.
set -euo pipefail

usage() {
  cat <<'TEXT'
deploy/run.sh                      try it: keygate demo
deploy/run.sh FILE                 run it: keygate serve --config FILE
deploy/run.sh [FILE] -- ARGUMENT…  the same, with more arguments for keygate
TEXT
}

config=
while [ "$#" -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    -*) usage >&2; exit 2 ;;
    *)
      [ -z "$config" ] || { usage >&2; exit 2; }
      config=$1
      shift
      ;;
  esac
done
if [ -n "$config" ] && [ ! -e "$config" ]; then
  printf '%s: no such file\n' "$config" >&2
  exit 2
fi

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$top/deploy/prepare.sh"

need_for_building
install_packages
ensure_rust

echo "Building keygate (some minutes the first time)"
(cd "$top" && cargo build --release --locked --bin keygate --target-dir target)

# The gate takes the place of this shell, so signals reach it and its exit status is this one.
if [ -n "$config" ]; then
  exec "$top/target/release/keygate" serve --config "$config" "$@"
else
  exec "$top/target/release/keygate" demo "$@"
fi
