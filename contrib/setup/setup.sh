#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Everything that demo and tests need, on a machine that has nothing but this checkout. Idempotent: a stamp makes the next run
# end at once; an interrupted run goes on where it was.
#
# What changes on the machine: distribution packages are installed (no daemon is started, none is enabled for the next boot).
# All else lies in the checkout: .venv (Python packages), .cache (kernels, guest, log of this script).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
top=$(CDPATH='' cd -- "$here/../.." && pwd)
venv=$top/.venv
cache=$top/.cache
log=$cache/setup.log
policy=/usr/sbin/policy-rc.d
mark='# temporary, by setup.sh of the checkout: no daemon starts while packages are installed'

fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

fingerprint() {
    { cat "$here/setup.sh" "$here/apt.sh" "$here/requirements.txt" "$here"/packages.* "$top/contrib/lab/microvm/layer.py"; echo "$top"; /usr/bin/python3 -VV; } 2>/dev/null | cksum
}

if [ -e "$venv/.stamp" ] && [ "$(cat "$venv/.stamp")" = "$(fingerprint)" ]; then
    exit 0
fi
[ "$(id -u)" = 0 ] || fail "must be root (try: sudo ./run setup)"
mkdir -p "$cache"
exec 9>"$cache/setup.lock"
if command -v flock >/dev/null; then
    flock -w 1800 9 || fail "another setup of this checkout runs for half an hour"
fi
: >"$log"
began=$(date +%s)

# -- steps: "name ... seconds", output into the log

step() {
    name=$1
    shift
    from=$(date +%s)
    printf 'setup: %-58s' "$name"
    printf '\n== %s\n' "$name" >>"$log"
    code=0
    ("$@") >>"$log" 2>&1 || code=$?
    if [ "$code" -ne 0 ]; then
        printf 'failed\n'
        tail -n 25 "$log" >&2
        fail "step \"$name\" failed; the whole output is in $log"
    fi
    printf '%4s s\n' "$(($(date +%s) - from))"
}

# -- distribution packages

wanted() {
    sed 's/#.*//' "$here/packages.$1"
}

missing_debian() {
    for package in $(wanted debian); do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=
        [ "$state" = installed ] || echo "$package"
    done
}

missing_fedora() {
    for package in $(wanted fedora); do
        rpm -q --quiet --whatprovides "$package" || echo "$package"
    done
}

# apt asks policy-rc.d before a package's script starts a daemon
deny_starts() {
    if [ -e "$policy" ] && ! grep -qxF "$mark" "$policy"; then
        mv "$policy" "$policy.before-setup"
    fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
}

restore_policy() {
    if [ -e "$policy" ] && grep -qxF "$mark" "$policy"; then
        rm -f "$policy"
    fi
    if [ -e "$policy.before-setup" ]; then
        mv "$policy.before-setup" "$policy"
    fi
}

installed_packages() {
    if command -v dpkg-query >/dev/null; then
        dpkg-query -W -f '${Package}\n' | sort
    else
        rpm -qa --qf '%{NAME}\n' | sort
    fi
}

# new packages' daemons would start at the next boot: that is for an installed agent to decide, not for a checkout
disable_units_new_since() {
    command -v systemctl >/dev/null || return 0
    for package in $(installed_packages | grep -vxF -f "$1"); do
        { dpkg -L "$package" 2>/dev/null || rpm -ql "$package" 2>/dev/null; } |
            sed -n 's#^.*/lib/systemd/system/\([^/@]*\)$#\1#p; s#^/lib/systemd/system/\([^/@]*\)$#\1#p'
    done | grep -E '^(libvirt|virt|sanlock|wdmd|qemu).*\.(service|socket|timer)$' | sort -u | while read -r unit; do
        systemctl disable --quiet "$unit" || true
    done
}

install_debian() {
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8
    [ -z "$(dpkg --audit)" ] || sh "$here/apt.sh" dpkg --configure -a
    sh "$here/apt.sh" apt-get -q update
    sh "$here/apt.sh" apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends "$@"
    disable_units_new_since "$cache/packages-before"
}

install_fedora() {
    dnf -q -y --setopt=install_weak_deps=False install "$@"
    disable_units_new_since "$cache/packages-before"
}

trap restore_policy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
restore_policy # of a run that was killed

if command -v apt-get >/dev/null; then
    missing=$(missing_debian)
    if [ -n "$missing" ]; then
        # kept from a run that was interrupted: what that run installed is new, too
        [ -e "$cache/packages-before" ] || installed_packages >"$cache/packages-before"
        deny_starts
        # shellcheck disable=SC2086
        step "distribution packages ($(echo "$missing" | wc -w) missing)" install_debian $missing
        restore_policy
    fi
elif command -v dnf >/dev/null; then
    missing=$(missing_fedora)
    if [ -n "$missing" ]; then
        # kept from a run that was interrupted: what that run installed is new, too
        [ -e "$cache/packages-before" ] || installed_packages >"$cache/packages-before"
        # shellcheck disable=SC2086
        step "distribution packages ($(echo "$missing" | wc -w) missing)" install_fedora $missing
    fi
else
    fail "neither apt-get nor dnf here: Debian 12, Ubuntu 24.04, Fedora 38 or newer are served"
fi

/usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "/usr/bin/python3 is $(/usr/bin/python3 -V 2>&1), 3.11 or newer is needed: take Debian 12, Ubuntu 24.04, Fedora 38 or newer"

# -- Python

make_venv() {
    # a moved checkout or another Python leaves an environment that does not work
    if "$venv/bin/python" -c 'import pip' 2>/dev/null &&
        [ "$("$venv/bin/python" -c 'import sys; print(sys.prefix)')" = "$venv" ] &&
        [ "$("$venv/bin/python" -V)" = "$(/usr/bin/python3 -V)" ] &&
        grep -qF "$venv" "$venv/pyvenv.cfg" "$venv/bin/pip"; then
        return 0
    fi
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv"
}

python_packages() {
    binding="libvirt-python==$(pkg-config --modversion libvirt)"
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --root-user-action=ignore \
        --use-pep517 -r "$here/requirements.txt" "$binding"
}

# sanlock's binding is not on PyPI; the checkout is found by a relative path, so it may be bound to another place
link_modules() {
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    module=$(/usr/bin/python3 -c 'import sanlock; print(sanlock.__file__)')
    ln -sfn "$module" "$site/$(basename "$module")"
    echo ../../../.. >"$site/vdsm-checkout.pth"
    cd / && "$venv/bin/python" -c 'import sanlock, libvirt, vdsm'
}

step "Python environment (.venv)" make_venv
step "Python packages" python_packages
step "links to sanlock's binding and to the checkout" link_modules

# -- kernels and programs of test machines: unpacked into .cache, never installed

# images of containers come with every package and without the lists
if command -v apt-get >/dev/null && ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
    step "package lists" sh "$here/apt.sh" apt-get -q update
fi

kernel() {
    cd "$top" && "$venv/bin/python" -m contrib.lab.kernels "$1"
}

kernel_of_guests() {
    kernel guest && "$venv/bin/python" -m contrib.lab.guest
}

step "kernel for guests (.cache/kernels/guest)" kernel_of_guests
step "kernel for test machines (.cache/kernels/lab)" kernel lab

# programs for test machines only: unpacked, too
layer() {
    cd "$top" && "$venv/bin/python" -m contrib.lab.microvm.layer
}

step "programs for test machines (.cache/lab-root)" layer
rm -f "$cache/packages-before"
fingerprint >"$venv/.stamp"
printf 'setup: done in %s s\n' "$(($(date +%s) - began))"
