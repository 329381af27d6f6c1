#!/usr/bin/env bash
# Installs the Debian packages that some tests need, and starts none of the daemons they bring.
#
#     tests/install_packages.sh slurmctld slurmd slurm-client munge slurmdbd mariadb-server
#
# It does something only where it may: as root on a Debian (or a system made from it). Elsewhere one loud line names the
# packages whose tests will be skipped and the status is 0; with REQUIRE_ALL=1 nothing may be skipped and it is 1.
# Packages that are there already cost a fraction of a second and no network.
set -euo pipefail

policy=/usr/sbin/policy-rc.d # Debian's package scripts ask it before they start a service; 101 means "no"
policy_before=$policy.before-tests
mark="# in place only while ${0##*/} runs"

missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
    done
}

give_up() {
    echo "!!!! $1: the tests that need these packages will be SKIPPED: ${missing[*]}" >&2
    if [[ ${REQUIRE_ALL:-} == 1 ]]; then
        echo "!!!! REQUIRE_ALL=1 allows no skips: install them and run again" >&2
        exit 1
    fi
    exit 0
}

# Our own policy, left by a run that was killed, is never taken for the system's.
forbid_starts() {
    if [[ -e $policy ]] && ! grep -qxF "$mark" "$policy"; then mv "$policy" "$policy_before"; fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
}

restore_policy() {
    rm -f "$policy"
    if [[ -e $policy_before ]]; then mv "$policy_before" "$policy"; fi
}

install_missing() {
    local apt=(apt-get --quiet --yes -o DPkg::Lock::Timeout=300)
    export DEBIAN_FRONTEND=noninteractive
    "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "${missing[@]}"
}

[[ $# -gt 0 ]] || { echo "usage: ${0##*/} PACKAGE..." >&2; exit 2; }
missing=("$@")
command -v dpkg-query >/dev/null || give_up "not a Debian system"
mapfile -t missing < <(missing_packages "$@")
[[ ${#missing[@]} -gt 0 ]] || exit 0
command -v apt-get >/dev/null || give_up "there is no apt-get"
[[ $(id -u) == 0 ]] || give_up "not root"

echo "installing ${missing[*]} (no daemon is started)" >&2
exec 9<"${policy%/*}"
flock 9 # two runs at once would save and restore each other's policy
log=$(mktemp)
trap 'restore_policy; rm -f "$log"' EXIT
forbid_starts
if ! install_missing >"$log" 2>&1 9>&-; then
    tail -n 5 "$log" >&2
    give_up "apt-get failed"
fi
