#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
#   apt.sh apt-get -q update        (any apt or dpkg command)
#
# Runs the command, and runs it again for as long as another process holds one of their locks: machines upgrade themselves in the
# background. apt's own DPkg::Lock::Timeout covers dpkg's lock only, neither the package lists' nor that of downloads.
# APT_WAIT_S: how long, 900 s by default.
set -u
limit=$(($(date +%s) + ${APT_WAIT_S:-900}))
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
told=''
while :; do
    LC_ALL=C.UTF-8 "$@" 2>"$errors"
    code=$?
    if [ "$code" -eq 0 ] || ! grep -qE 'Could not get lock|Unable to (acquire|lock)|(is|was) locked by another process' "$errors"; then
        cat "$errors" >&2
        exit "$code"
    fi
    if [ "$(date +%s)" -ge "$limit" ]; then
        cat "$errors" >&2
        echo "apt.sh: another process held apt's lock for ${APT_WAIT_S:-900} s: $*" >&2
        exit "$code"
    fi
    [ -n "$told" ] || grep -m1 -E 'lock' "$errors" >&2
    told=yes
    sleep 1
done
