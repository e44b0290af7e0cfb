# Puts in place what a bare Debian or Ubuntu lacks, and only that. Sourced by deploy/run.sh and tests/run.sh, not run.
# Expects `top`, the folder of Cargo.toml.

packages=()
# Where the official installer of Rust is. Another one is for tests of this file only.
rustup_url=${KEYGATE_RUSTUP_URL:-https://sh.rustup.rs}

fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# need COMMAND PACKAGE...: the packages go on the list, each once, if the command is missing.
need() {
  local package
  command -v "$1" >/dev/null 2>&1 && return
  for package in "${@:2}"; do
    case " ${packages[*]-} " in
      *" $package "*) ;;
      *) packages+=("$package") ;;
    esac
  done
}

# What every build needs. Some crates compile C, with cmake and make; bare images lack certificates beside curl.
need_for_building() {
  need cc gcc libc6-dev
  need cmake cmake
  need make make
  need pkg-config pkg-config
  need curl curl ca-certificates
}

# Runs its arguments as root; without a terminal sudo must not ask for a password.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif [ -t 0 ]; then
    sudo "$@"
  else
    sudo -n "$@"
  fi
}

# Installs the list, if there is anything on it.
install_packages() {
  [ "${#packages[@]}" -gt 0 ] || return 0
  local by_hand="as root: apt-get update && apt-get install -y ${packages[*]}"
  printf 'Missing here: %s\n' "${packages[*]}"
  command -v apt-get >/dev/null 2>&1 || fail "there is no apt-get to install them with; install them and run this again"
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null 2>&1; then
    fail "installing them needs root or sudo; $by_hand"
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}" ||
    fail "apt-get could not install them; $by_hand"
}

# Whether the cargo in PATH is at least the `rust-version` of Cargo.toml. Debian's own is too old.
rust_is_new_enough() {
  local found wanted
  found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || return 1
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$top/Cargo.toml")
  [ -n "$found" ] && [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ]
}

# Makes a new enough cargo the first one in PATH.
ensure_rust() {
  rust_is_new_enough && return
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  export PATH
  rust_is_new_enough && return
  if command -v rustup >/dev/null 2>&1; then
    echo "Updating Rust"
    rustup toolchain install stable --profile minimal || fail "rustup could not install the stable toolchain"
  else
    echo "Installing Rust with rustup"
    curl --proto '=https' --tlsv1.2 -sSf "$rustup_url" | sh -s -- -y --profile minimal ||
      fail "the installer of Rust failed"
  fi
  rust_is_new_enough || fail "this needs a newer Rust than the default one here; as you: rustup default stable"
}
