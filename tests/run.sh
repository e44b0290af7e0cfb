#!/usr/bin/env bash
# Every check there is, on a bare Debian 12 or Ubuntu too: installs what is missing, then runs one step after another.
# A failing step does not stop the others. The last line is `N passed, N failed`: test cases where a step counts them
# (cargo's summaries, or lines `ok NAME` and `FAILED NAME`), and one for every other step.
#
#   tests/run.sh           without programs of other people
#   tests/run.sh --real    and with real clients
set -euo pipefail

real=
for argument in "$@"; do
  case $argument in
    --real) real=yes ;;
    *) echo "tests/run.sh [--real]" >&2; exit 2 ;;
  esac
done

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
. deploy/prepare.sh

export CARGO_TERM_COLOR=never # the counts are read from plain text
target=${CARGO_TARGET_DIR:-target}
tools=$target/tools
log=$target/step.log
step_limit=1800 # seconds; a step that hangs must not hang the run
passed=0
failed=0
failures=()

# --- What is needed -----------------------------------------------------------------------------------------------------

# Whether a test or a bench starts that program. The real clients see to their own.
wanted() {
  grep -rqF -e "Command::new(\"$1\")" -e "bin/$1\"" src tests/gateway benches 2>/dev/null
}

# Installs the list. A service in one of its packages is not started: tests start what they need, on ports of their own.
install_without_services() {
  local policy=/usr/sbin/policy-rc.d
  case " ${packages[*]} " in
    *' prometheus '* | *' nginx-light '* | *' haproxy '*) [ -e "$policy" ] || local made=yes ;;
  esac
  if [ -z "${made:-}" ]; then
    install_packages
    return
  fi
  # In a shell of its own: install_packages ends it when it fails, and the policy must go in any case.
  (
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 755 "$policy"
    install_packages
  ) || exit
}

prepare() {
  need_for_building
  need git git
  need openssl openssl
  ! wanted promtool || need promtool prometheus
  ! wanted prometheus || need prometheus prometheus
  ! wanted nginx || need nginx nginx-light
  ! wanted haproxy || need haproxy haproxy
  ! wanted wrk || need wrk wrk
  if [ -n "$real" ] && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    packages+=(python3 python3-venv)
  fi
  install_without_services
  ensure_rust
  cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt || fail "rustfmt is missing"
  cargo clippy --version >/dev/null 2>&1 || rustup component add clippy || fail "clippy is missing"
}

# --- Steps --------------------------------------------------------------------------------------------------------------

skipped=77 # what a step returns that did not run; it says why itself

# count_cases LOG: passed and failed test cases, as cargo test, cargo nextest, pytest and our own scripts tell them.
count_cases() {
  awk '
    function number(text) { return match(text, /[0-9]+/) ? substr(text, RSTART, RLENGTH) + 0 : 0 }
    /^test result: / || /^ *Summary \[.*tests? run:/ || /^(=+ )?[0-9]+ [a-z]+(, [0-9]+ [a-z]+)* in [0-9.]+s/ {
      runner = 1
      sub(/^[^0-9:]*: /, "")
      sub(/^.*tests? run: /, "")
      sub(/ in [0-9.]+s.*/, "")
      parts = split($0, part, /[;,]/)
      for (i = 1; i <= parts; i++) {
        sub(/\(.*/, "", part[i])
        if (part[i] ~ /passed/) passed += number(part[i])
        if (part[i] ~ /failed|timed out|error/) failed += number(part[i])
      }
    }
    /^ok / { ok++ }
    /^FAILED / { bad++ }
    END { print runner ? passed + 0 : ok + 0, runner ? failed + 0 : bad + 0 }
  ' "$1"
}

# Ends the step that is under way, and what it started.
stop_step() {
  [ -z "${step_group:-}" ] || kill -"$1" -- "-$step_group" 2>/dev/null || true
}
trap 'stop_step TERM; kill ${showing:-} 2>/dev/null; echo; echo "interrupted"; exit 130' INT TERM

# show SECONDS LINE: prints the log from that line on while the step runs; fails if it runs longer than that.
show() {
  timeout "$1" tail -n "$2" -s 0.2 -f --pid="$step_group" "$log" &
  showing=$!
  wait "$showing" # not in the foreground: signals must reach this shell at once
}

# step NAME COMMAND...: runs it, shows what it prints, counts it.
step() {
  local name=$1 began=$SECONDS status=0 lines cases cases_failed outcome
  shift
  printf '\n== %s\n' "$name"
  : >"$log"
  # In a process group of its own, to be ended as a whole; by way of a file, so that what a test leaves running cannot keep
  # the run waiting. Without -e: a step says itself what ends it. The trap leaves its command the last word when stopped.
  set -m
  (set +e; trap : TERM; "$@") </dev/null >"$log" 2>&1 &
  step_group=$!
  set +m
  show "$step_limit" +1 || {
    printf 'Still not done after %d seconds: stopped.\n' "$step_limit"
    lines=$(wc -l <"$log")
    stop_step TERM
    show 10 "+$((lines + 1))" || stop_step KILL
  }
  wait "$step_group" || status=$?
  stop_step KILL
  step_group=

  read -r cases cases_failed < <(count_cases "$log")
  outcome=ok
  if [ "$status" = "$skipped" ]; then
    outcome=skipped
  elif [ "$status" != 0 ] || [ "$cases_failed" != 0 ]; then
    [ "$cases_failed" != 0 ] || cases_failed=1
    outcome="FAILED (exit status $status)"
    failures+=("$name")
  elif [ "$cases" = 0 ]; then
    cases=1
  fi
  passed=$((passed + cases))
  failed=$((failed + cases_failed))
  printf -- '-- %s: %s, %d s\n' "$name" "$outcome" $((SECONDS - began))
  last_outcome=$outcome
}

formatted() { cargo fmt --all --check; }

linted() { cargo clippy --all-targets --locked -- -D warnings; }

documented() { RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items --locked; }

tested() {
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --no-fail-fast --no-tests pass
  else
    cargo test --locked --lib --bins --tests --no-fail-fast
  fi
}

doc_tested() { cargo test --locked --doc --no-fail-fast; }

# Without `--bench` among their arguments, benches run everything once and measure nothing.
benches_smoked() {
  grep -q '^\[\[bench\]\]' Cargo.toml || { echo "SKIPPED: no benches"; return "$skipped"; }
  cargo test --locked --bench '*'
}

# The examples as a reader would try them: in a folder of their own, with the files made as the head of each says.
configurations_checked() {
  local folder=$target/examples name status=0
  rm -rf "$folder"
  cp -r config "$folder"
  chmod 600 "$folder/keys.yaml"
  for name in "$folder"/*.yaml; do
    grep -q '^listen:' "$name" || continue # key files are checked with what names them
    (cd "$folder" && sed -n '/in the folder of this file:$/,/^$/s/^#   //p' "${name##*/}" | bash -eu) >"$name.log" 2>&1 ||
      { cat "$name.log"; echo "FAILED the files of config/${name##*/} could not be made as it says"; return 1; }
    if cargo run --locked --quiet -- check --config "$name"; then
      echo "ok keygate check config/${name##*/}"
    else
      echo "FAILED keygate check config/${name##*/}"
      status=1
    fi
  done
  return "$status"
}

# tool NAME VERSION [OPTION...]: puts a cargo command into $tools unless there is one. Not optimised: building it would
# then take longer than running it ever will.
tool() {
  PATH=$PWD/$tools/bin:$tools/bin:$PATH
  command -v "$1" >/dev/null 2>&1 ||
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --debug --locked --root "$tools" --target-dir "$tools/build" "${@:3}" "$1@$2"
}

# With -D warnings an exception in .deny.toml that is no longer needed is an error too.
dependencies_allowed() { tool cargo-deny 0.20.2 && cargo deny check -D warnings bans licenses sources; }

advisories_checked() {
  tool cargo-deny 0.20.2 || return
  GIT_TERMINAL_PROMPT=0 timeout 120 cargo deny fetch db || { echo "SKIPPED: no advisory database"; return "$skipped"; }
  cargo deny check -D warnings advisories
}

# Looks at all of Cargo.lock, also at what is never built here. The exceptions are those of .deny.toml.
lockfile_audited() {
  local ignored
  tool cargo-audit 0.22.2 --no-default-features || return
  mapfile -t ignored < <(grep -oE 'RUSTSEC-[0-9]+-[0-9]+' .deny.toml | sed 's/^/--ignore=/')
  cargo audit --deny warnings "${ignored[@]}"
}

# Ten seconds each. The corpora are replayed by ordinary tests; here libFuzzer starts from them and writes elsewhere.
# Without optimisation, which would take three times as long to build, and without a sanitizer, since unsafe is forbidden.
fuzzed() {
  local nightly name options folder=$target/fuzz status=0
  [ -e tests/fuzz/Cargo.toml ] || { echo "SKIPPED: no fuzz targets"; return "$skipped"; }
  nightly=$(rustup toolchain list 2>/dev/null | sed -n 's/^\(nightly[^ ]*\).*/\1/p' | head -n 1)
  [ -n "$nightly" ] || { echo "SKIPPED: no nightly toolchain"; return "$skipped"; }
  # cargo fuzz would mend a stale lock file in silence.
  cargo "+$nightly" metadata --locked --format-version 1 --manifest-path tests/fuzz/Cargo.toml >/dev/null || return
  tool cargo-fuzz 0.13.2 || return
  options=(--dev --sanitizer none --fuzz-dir tests/fuzz --target-dir "$folder/build")
  cargo "+$nightly" fuzz build "${options[@]}" || return
  for name in $(cargo "+$nightly" fuzz list --fuzz-dir tests/fuzz); do
    mkdir -p "$folder/$name"
    if cargo "+$nightly" fuzz run "${options[@]}" "$name" "$folder/$name" "tests/fuzz/corpus/$name" -- \
      -max_total_time=10 -print_final_stats=1 >"$folder/$name.log" 2>&1; then
      echo "ok fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/$name.log") inputs"
    else
      cat "$folder/$name.log"
      echo "FAILED fuzz $name"
      status=1
    fi
  done
  return "$status"
}

real_clients() {
  [ -e tests/real/run.sh ] || { echo "SKIPPED: no real-client tests yet"; return "$skipped"; }
  bash tests/real/run.sh
}

# --- The run ------------------------------------------------------------------------------------------------------------

echo "== what is needed"
prepare </dev/null
mkdir -p "$target"
printf -- '-- what is needed: there, %d s\n' "$SECONDS"

step "format" formatted
step "lints" linted
step "documentation" documented
step "tests" tested
step "tests in the documentation" doc_tested
step "deploy/run.sh" bash tests/deploy_test.sh
step "examples in config/" configurations_checked
step "benches, once" benches_smoked
step "fuzzing" fuzzed
step "dependencies: bans, licences, sources" dependencies_allowed
step "dependencies: advisories" advisories_checked
if [ "$last_outcome" = skipped ]; then
  printf '\n== %s\nSKIPPED: no advisory database\n' "dependencies: audit of Cargo.lock"
else
  step "dependencies: audit of Cargo.lock" lockfile_audited
fi
if [ -n "$real" ]; then step "real clients" real_clients; fi

printf '\nTook %d min %d s.\n' $((SECONDS / 60)) $((SECONDS % 60))
for name in ${failures[@]+"${failures[@]}"}; do printf 'Failed: %s\n' "$name"; done
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
