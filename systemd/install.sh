#!/usr/bin/env bash
# Installs the services on this machine, or brings an installation up to date. May be run again at any time.
# A new program is made ready beside the old one, which stays as it is until then; the old one is kept as DIR.previous.
#
#   sudo systemd/install.sh [both|orchestrator|worker] [options]
#     --prefix DIR      where the program goes (/opt/nvc; the units name this place, so another one rewrites them)
#     --network CIDR    let this network in and out, besides the machine itself; may be repeated; "any" for all
#     --key FILE        the key that the worker shows the orchestrator (from: orchestrator.py keys add --role worker)
#     --accept-key FILE the key that callers of the worker must show; the orchestrator then shows it
#     --instance NAME   one more worker on this host, nvc-worker@NAME, with settings, state and cache of its own; with
#                       --prefix of another version: blue and green (docs/operations.md)
#     --python PROGRAM  Python 3.11 or newer (python3)
#     --hashes FILE     take only packages with these hashes: DIR/requirements.lock of a host that is installed already
#     --no-venv         leave the virtual environment alone
#     --no-start        install, but neither enable nor start
#     --roll-back       go back to the program that was installed before this one (and again: forward)
#     --root DIR        install below DIR in place of /, without user, services or systemctl: for packages and tests
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_dir=$(dirname "$here")
what=both prefix=/opt/nvc root="" hashes="" python=python3 venv=yes start=yes roll_back=no key="" accept_key="" instance=""
networks=()

die() { echo "install.sh: $1" >&2; exit "${2:-2}"; }
say() { echo "install.sh: $*"; }

while (($#)); do
    case $1 in
        both | orchestrator | worker) what=$1 ;;
        --prefix) prefix=${2:?--prefix: a directory is missing}; shift ;;
        --network) networks+=("${2:?--network: an address range is missing}"); shift ;;
        --key) key=${2:?--key: a file is missing}; shift ;;
        --accept-key) accept_key=${2:?--accept-key: a file is missing}; shift ;;
        --instance) instance=${2:?--instance: a name is missing}; shift ;;
        --hashes) hashes=${2:?--hashes: a file is missing}; shift ;;
        --python) python=${2:?--python: a program is missing}; shift ;;
        --root) root=${2:?--root: a directory is missing}; venv=no start=no; shift ;;
        --no-venv) venv=no ;;
        --no-start) start=no ;;
        --roll-back) roll_back=yes ;;
        -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "install.sh: unknown argument $1; see --help" >&2; exit 2 ;;
    esac
    shift
done

[[ $prefix == /* ]] || die "--prefix: an absolute path was expected, got $prefix"
for file in "$key" "$accept_key" "$hashes"; do
    [[ -z $file || -r $file ]] || die "$file cannot be read"
done
if [[ -z $root ]]; then
    ((EUID == 0)) || die "this writes to $prefix and /etc/systemd; run it as root"
    command -v systemctl > /dev/null || die "no systemctl here; --root installs the files alone"
fi
services=(nvc-orchestrator nvc-worker)
[[ $what == both ]] || services=("nvc-$what")
if [[ -n $instance ]]; then
    [[ $what == worker ]] || die "--instance: is for a worker; say: install.sh worker --instance $instance"
    [[ $instance =~ ^[A-Za-z0-9][A-Za-z0-9-]{0,40}$ ]] || die "--instance: letters, digits and hyphens were expected"
    services=("nvc-worker@$instance")
fi
etc=$root/etc/nvc
settings_of() { # SERVICE: its file
    local name=${1#nvc-}
    echo "$etc/${name/@/-}.env"
}
state_of() { # SERVICE: where its settings put the state, if they do
    [[ ! -e $(settings_of "$1") ]] || sed -n 's/^NVC_STATE=//p' "$(settings_of "$1")" | tail -n 1
}
for service in "${services[@]}"; do # before anything is changed
    state=$(state_of "$service")
    [[ -z $state || $state == /* ]] ||
        die "NVC_STATE in $(settings_of "$service"): an absolute path was expected, got $state"
done

# --- the program: made ready as a whole, then put in the place of the one before ---

program=$root$prefix
prepare() { # DIR: the files of the checkout, and what they need
    local fresh=$1 entry
    rm -rf "$fresh"
    install -d -m 0755 "$fresh"
    folders=(coding deployment_check measures nvc page peers service sets video systemd deploy)
    for entry in "$source_dir"/*.py "$source_dir"/requirements*.txt "${folders[@]/#/$source_dir/}" \
        "$source_dir"/README.md; do
        [[ -e $entry ]] && cp -R "$entry" "$fresh/"
    done
    find "$fresh" -name __pycache__ -prune -exec rm -rf {} +
    git -C "$source_dir" rev-parse HEAD > "$fresh/COMMIT" 2> /dev/null || rm -f "$fresh/COMMIT"
    [[ -e $fresh/COMMIT || ! -e $source_dir/COMMIT ]] || cp "$source_dir/COMMIT" "$fresh/"
    [[ -z $hashes ]] || cp "$hashes" "$fresh/requirements.lock"
    chmod -R u=rwX,go=rX "$fresh"
    if [[ -e $program/.venv ]] && { [[ $venv == no ]] || same_requirements "$fresh"; }; then
        cp -al "$program/.venv" "$fresh/.venv" # hard links: nothing is written into it any more
        [[ -n $hashes || ! -e $program/requirements.lock ]] || cp "$program/requirements.lock" "$fresh/"
    elif [[ $venv == yes ]]; then
        say "virtual environment in $prefix/.venv"
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or newer was expected"
        "$python" -m venv "$fresh/.venv"
        pip=("$fresh/.venv/bin/python" -m pip install --quiet --disable-pip-version-check)
        if [[ -n $hashes ]]; then
            "${pip[@]}" --no-deps --require-hashes -r "$fresh/requirements.lock"
        else
            "${pip[@]}" --report "$fresh/report-1.json" -r "$fresh/requirements-run.txt" -r "$fresh/requirements-measures.txt"
            "${pip[@]}" --report "$fresh/report-2.json" --no-deps -r "$fresh/requirements-clips.txt"
            "$python" "$here/lock_requirements.py" "$fresh"/report-?.json > "$fresh/requirements.lock"
            rm "$fresh"/report-?.json
        fi
    fi
    if [[ $venv == yes ]]; then # what does not start with its defaults is not put in place
        "$fresh/.venv/bin/python" -B "$fresh/orchestrator.py" --show-config > /dev/null
        "$fresh/.venv/bin/python" -B "$fresh/worker.py" --show-config > /dev/null
    fi
}
same_requirements() { # DIR: whether it needs what the installed program needs
    local file
    local files=(requirements-run.txt requirements-clips.txt requirements-measures.txt)
    [[ -z $hashes ]] || files+=(requirements.lock)
    for file in "${files[@]}"; do
        cmp -s "$program/$file" "$1/$file" || return 1
    done
}

if [[ $roll_back == yes ]]; then
    [[ -d $program.previous ]] || die "--roll-back: there is no $program.previous" 1
    say "back to the program in $program.previous"
    mv "$program.previous" "$program.new"
    here=$program/systemd # whose units belong to it
else
    say "program to $program"
    trap 'rm -rf "$program.new"' EXIT
    prepare "$program.new"
    rm -rf "$program.previous"
fi
[[ ! -e $program ]] || mv "$program" "$program.previous"
mv "$program.new" "$program"
trap - EXIT

# --- the user ---

if [[ -z $root ]] && ! id -u nvc > /dev/null 2>&1; then
    say "user nvc"
    useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin nvc
fi

# --- settings and keys: never overwritten ---

install -d -m 0755 "$etc"
for service in "${services[@]}"; do
    file=$(settings_of "$service") base=${service%@*}
    if [[ ! -e $file ]]; then
        say "settings in ${file#"$root"}"
        install -m 0640 "$here/${base#nvc-}.env.example" "$file"
        # Beside another worker: any free port, which the orchestrator is told.
        [[ -z $instance ]] || sed -i "s/^NVC_PORT=.*/NVC_PORT=0/" "$file"
        [[ -n $root ]] || chgrp nvc "$file"
    fi
done

# --- the units, and what this installation adds to them ---

units=$root/etc/systemd/system
install -d -m 0755 "$units"
for service in "${services[@]}"; do
    own=()
    [[ -z $instance ]] || own=(-e "s|/etc/nvc/worker\.env|/etc/nvc/worker-$instance.env|g"
        -e "s/\(var\/lib\/\|var\/cache\/\|Directory=\)nvc-worker/\1nvc-worker-$instance/g"
        -e "s/^Description=.*/& $instance/")
    sed -e "s|/opt/nvc|$prefix|g" "${own[@]}" "$here/${service%@*}.service" > "$units/$service.service.new"
    chmod 0644 "$units/$service.service.new"
    mv "$units/$service.service.new" "$units/$service.service"
    state=$(state_of "$service")
    rm -f "$units/$service.service.d/state.conf"
    if [[ -n $state ]]; then # a place that the sandbox lets it write to
        install -d -m 0755 "$units/$service.service.d"
        printf '[Service]\nReadWritePaths=%s\n' "$state" > "$units/$service.service.d/state.conf"
        install -d -m 0700 "$root$state"
        [[ -n $root ]] || chown nvc:nvc "$state"
    fi
    if ((${#networks[@]})); then
        install -d -m 0755 "$units/$service.service.d"
        { echo "[Service]"; printf 'IPAddressAllow=%s\n' "${networks[@]}"; } > "$units/$service.service.d/network.conf"
    fi
done
if [[ " ${services[*]} " == *" nvc-orchestrator "* ]]; then # its port is systemd's, so that a restart refuses nobody
    value() { sed -n "s/^$1=//p" "$etc/orchestrator.env" | tail -n 1; }
    host=$(value NVC_HOST) port=$(value NVC_PORT)
    host=${host:-127.0.0.1} port=${port:-8081}
    [[ $host != *:* || $host == \[* ]] || host="[$host]"
    sed "s|^ListenStream=.*|ListenStream=$host:$port|" "$here/nvc-orchestrator.socket" \
        > "$units/nvc-orchestrator.socket"
    chmod 0644 "$units/nvc-orchestrator.socket"
fi
add_credential() { # SERVICE NAME FILE: a secret that only this service is given, if it is installed here
    [[ " ${services[*]} " == *" $1 "* && -n $3 ]] || return 0
    install -d -m 0700 "$etc/credentials"
    install -m 0600 "$3" "$etc/credentials/$1.$2"
    install -d -m 0755 "$units/$1.service.d"
    printf '[Service]\nLoadCredential=%s:/etc/nvc/credentials/%s.%s\n' "$2" "$1" "$2" \
        > "$units/$1.service.d/credential-$2.conf"
}
add_credential "nvc-worker${instance:+@$instance}" key "$key"
add_credential "nvc-worker${instance:+@$instance}" accept_key "$accept_key"
add_credential nvc-orchestrator worker_key "$accept_key"

if [[ $start == yes ]]; then
    systemctl daemon-reload
    systemctl enable "${services[@]}"
    if [[ " ${services[*]} " == *" nvc-orchestrator "* ]]; then
        systemctl enable nvc-orchestrator.socket
        # A port that has moved, or that the service itself still holds, is taken over only once both have let go.
        if [[ $(systemctl show -P Listen nvc-orchestrator.socket) != *"$host:$port "* ]] ||
            ! systemctl is-active --quiet nvc-orchestrator.socket; then
            systemctl stop nvc-orchestrator.service nvc-orchestrator.socket
        fi
        systemctl start nvc-orchestrator.socket
    fi
    systemctl restart "${services[@]}"
    say "started: ${services[*]}; follow them with: journalctl -f -u nvc-orchestrator -u nvc-worker"
fi
say "done; try it with $prefix/systemd/smoke_test.sh"
