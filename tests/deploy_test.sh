#!/usr/bin/env bash
# What deploy/run.sh does on machines of several kinds, seen through stubs: nothing is installed, fetched or built.
# Prints one line a case, `ok NAME` or `FAILED NAME`; tests/run.sh counts them.
set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# --- The machine --------------------------------------------------------------------------------------------------------

# Everything the stubs do is written to $machine/log; stubs find their machine beside themselves.
stub() { # stub FOLDER NAME, body on stdin
  mkdir -p "$1"
  { echo '#!/bin/bash'; cat; } >"$1/$2"
  chmod +x "$1/$2"
}

# machine NAME: an account and a copy of the project, with nothing in PATH but the plainest tools and apt-get.
machine() {
  name=$1
  machine=$work/$name
  project=$machine/project
  mkdir -p "$machine/bin" "$machine/home" "$machine/elsewhere" "$project/deploy"
  cp "$top/deploy/run.sh" "$top/deploy/prepare.sh" "$project/deploy/"
  cp "$top/Cargo.toml" "$project/"
  : >"$machine/log"
  echo 0 >"$machine/uid"
  for tool in bash sh cat chmod cut dirname env head mkdir pwd sed sort; do
    ln -s "$(command -v "$tool")" "$machine/bin/$tool"
  done
  stub "$machine/bin" id <<<"cat '$machine/uid'"
  # Installing curl makes curl there; the rest is only written down.
  stub "$machine/bin" apt-get <<END
echo "apt-get \$*" >>'$machine/log'
[ ! -e '$machine/apt-fails' ] || exit 100
case " \$* " in *' install '*' curl '*) . '$machine/put-curl' ;; esac
END
  cat >"$machine/put-curl" <<END
printf '%s\n' '#!/bin/bash' 'echo "curl \${*: -1}" >>"$machine/log"' 'cat "$machine/installer"' >'$machine/bin/curl'
chmod +x '$machine/bin/curl'
END
  # The installer puts a new cargo into the account, as the real one does.
  cat >"$machine/installer" <<END
echo "rustup-init \$*" >>'$machine/log'
mkdir -p "\$HOME/.cargo/bin"
cat '$machine/cargo' >"\$HOME/.cargo/bin/cargo"
chmod +x "\$HOME/.cargo/bin/cargo"
END
  cargo_of 1.99.0 >"$machine/cargo"
}

# A cargo of that version, whose build makes a keygate that tells its process and its arguments.
cargo_of() {
  cat <<END
#!/bin/bash
if [ "\$1" = --version ]; then echo 'cargo $1 (0123456 2026-01-01)'; exit; fi
echo "cargo \$* in \${PWD##*/}" >>'$machine/log'
[ ! -e '$machine/build-fails' ] || exit 101
mkdir -p target/release
printf '%s\n' '#!/bin/bash' 'echo "keygate \$*" >>"$machine/log"' 'echo "\$\$" >"$machine/pid"' >target/release/keygate
chmod +x target/release/keygate
END
}

has_tools() {
  for tool in cc cmake make pkg-config; do stub "$machine/bin" "$tool" </dev/null; done
  . "$machine/put-curl"
}

has_cargo() { # has_cargo VERSION [FOLDER]
  mkdir -p "${2:-$machine/bin}"
  cargo_of "$1" >"${2:-$machine/bin}/cargo"
  chmod +x "${2:-$machine/bin}/cargo"
}

has_sudo() {
  stub "$machine/bin" sudo <<END
echo "sudo \$*" >>'$machine/log'
[ "\$1" != -n ] || shift
exec "\$@"
END
}

# --- What is asked of it ------------------------------------------------------------------------------------------------

# run ARGUMENT...: starts deploy/run.sh from another folder; variables may be given before `--vars`.
run() {
  (
    cd "$machine/elsewhere" || exit 99
    exec env -i HOME="$machine/home" PATH="$machine/bin" ${variable:+"$variable"} bash "$project/deploy/run.sh" "$@"
  ) </dev/null >"$machine/output" 2>&1 &
  started=$!
  wait "$started"
  status=$?
  variable=
}
variable=

# expect STATUS, the log on stdin.
expect() {
  local wanted
  wanted=$(cat)
  if [ "$status" = "$1" ] && [ "$(cat "$machine/log")" = "$wanted" ]; then
    echo "ok deploy: $name"
  else
    failed=1
    echo "FAILED deploy: $name"
    echo "  exit status $status, wanted $1; did (<) and should have done (>):"
    diff "$machine/log" - <<<"$wanted" | sed 's/^/  /'
    sed 's/^/  | /' "$machine/output"
  fi
}

# says TEXT: the last run printed it.
says() {
  if grep -qF -- "$1" "$machine/output"; then
    echo "ok deploy: $name: says «$1»"
  else
    failed=1
    echo "FAILED deploy: $name: does not say «$1»"
    sed 's/^/  | /' "$machine/output"
  fi
}

build='cargo build --release --locked --bin keygate --target-dir target in project'
everything='gcc libc6-dev cmake make pkg-config curl ca-certificates'

# --- The cases ----------------------------------------------------------------------------------------------------------

machine 'a bare machine'
run
expect 0 <<END
apt-get update
apt-get install -y --no-install-recommends $everything
curl https://sh.rustup.rs
rustup-init -y --profile minimal
$build
keygate demo
END
says "Missing here: $everything"

machine 'a machine with everything'
has_tools && has_cargo 1.99.0
run
expect 0 <<END
$build
keygate demo
END
# The gate is the very process that was started, so Ctrl-C and SIGTERM reach it.
if [ "$(cat "$machine/pid")" = "$started" ]; then
  echo 'ok deploy: the gate takes the place of the shell'
else
  failed=1
  echo 'FAILED deploy: the gate does not take the place of the shell'
fi

machine 'only cmake is missing'
has_tools && has_cargo 1.100.0 && rm "$machine/bin/cmake"
run
expect 0 <<END
apt-get update
apt-get install -y --no-install-recommends cmake
$build
keygate demo
END

machine 'Rust in the account but not in PATH'
has_tools && has_cargo 1.99.0 "$machine/home/.cargo/bin"
run
expect 0 <<END
$build
keygate demo
END

machine 'the Rust of Debian is too old'
has_tools && has_cargo 0.66.0
run
expect 0 <<END
curl https://sh.rustup.rs
rustup-init -y --profile minimal
$build
keygate demo
END

machine 'rustup is there with an old toolchain'
has_tools && has_cargo 1.60.0
stub "$machine/bin" rustup <<END
echo "rustup \$*" >>'$machine/log'
cat '$machine/cargo' >'$machine/bin/cargo'
END
run
expect 0 <<END
rustup toolchain install stable --profile minimal
$build
keygate demo
END

machine 'rustup is there with an older default'
has_tools && has_cargo 1.60.0
stub "$machine/bin" rustup <<END
echo "rustup \$*" >>'$machine/log'
END
run
expect 1 <<END
rustup toolchain install stable --profile minimal
END
says 'rustup default stable'

machine 'no root, but sudo'
echo 1000 >"$machine/uid"
has_sudo
run
expect 0 <<END
sudo -n env DEBIAN_FRONTEND=noninteractive apt-get update
apt-get update
sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $everything
apt-get install -y --no-install-recommends $everything
curl https://sh.rustup.rs
rustup-init -y --profile minimal
$build
keygate demo
END

machine 'no root and no sudo'
echo 1000 >"$machine/uid"
run
expect 1 </dev/null
says "as root: apt-get update && apt-get install -y $everything"

machine 'no root, and nothing but Rust missing'
echo 1000 >"$machine/uid"
has_tools
run
expect 0 <<END
curl https://sh.rustup.rs
rustup-init -y --profile minimal
$build
keygate demo
END

machine 'another system'
rm "$machine/bin/apt-get"
run
expect 1 </dev/null
says 'there is no apt-get'

machine 'apt-get fails'
touch "$machine/apt-fails"
run
expect 1 <<END
apt-get update
END
says 'apt-get could not install them'

machine 'the installer fails'
has_tools && echo 'exit 3' >"$machine/installer"
run
expect 1 <<END
curl https://sh.rustup.rs
END

machine 'the installer cannot be fetched'
has_tools
stub "$machine/bin" curl <<<'exit 6'
run
expect 1 </dev/null
says 'the installer of Rust failed'

machine 'another installer, for this test'
has_tools
variable=KEYGATE_RUSTUP_URL=https://127.0.0.1/installer
run
expect 0 <<END
curl https://127.0.0.1/installer
rustup-init -y --profile minimal
$build
keygate demo
END

machine 'the build fails'
has_tools && has_cargo 1.99.0 && touch "$machine/build-fails"
run
expect 101 <<END
$build
END

machine 'a configuration'
has_tools && has_cargo 1.99.0 && touch "$machine/elsewhere/my gate.yaml"
run 'my gate.yaml'
expect 0 <<END
$build
keygate serve --config my gate.yaml
END

machine 'a configuration and more'
has_tools && has_cargo 1.99.0 && touch "$machine/elsewhere/gate.yaml"
run gate.yaml -- --one two
expect 0 <<END
$build
keygate serve --config gate.yaml --one two
END

machine 'more for the demo'
has_tools && has_cargo 1.99.0
run -- --one two
expect 0 <<END
$build
keygate demo --one two
END

machine 'a configuration that is not there'
run gate.yaml
expect 2 </dev/null
says 'gate.yaml: no such file'

machine 'two configurations'
touch "$machine/elsewhere/one" "$machine/elsewhere/two"
run one two
expect 2 </dev/null

machine 'an unknown option'
run --fast
expect 2 </dev/null
says 'deploy/run.sh FILE'

machine 'help'
run --help
expect 0 </dev/null
says 'keygate serve --config FILE'

listed=$(. "$top/deploy/prepare.sh"; need no-such-program one two; need nor-this-one two; echo "${packages[*]}")
if [ "$listed" = 'one two' ]; then
  echo 'ok deploy: a package is listed once'
else
  failed=1
  echo "FAILED deploy: a package is listed once: $listed"
fi

# --- The systemd unit ---------------------------------------------------------------------------------------------------

# `verify` reports what systemd would pass over in silence, and its exit status says little: no word is the only good one.
if command -v systemd-analyze >/dev/null 2>&1; then
  sed 's|/usr/local/bin/keygate|/bin/sh|' "$top/deploy/keygate.service" >"$work/keygate.service"
  if grep -q '^ExecStart=/bin/sh serve --config /etc/keygate/keygate.yaml$' "$work/keygate.service" &&
    said=$(systemd-analyze verify --man=no "$work/keygate.service" 2>&1) && [ -z "$said" ]; then
    echo 'ok deploy: systemd understands the unit'
  else
    failed=1
    echo 'FAILED deploy: systemd does not understand the unit'
    sed 's/^/  | /' <<<"${said:-}"
  fi
else
  echo 'SKIPPED: no systemd-analyze to read the unit with'
fi

exit "$failed"
