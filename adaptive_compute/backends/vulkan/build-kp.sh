#!/usr/bin/env bash
# Installs what the Vulkan backend needs: a driver (Mesa, with lavapipe for machines without a GPU), Vulkan's headers and
# loader, a GLSL compiler, and Kompute's Python package `kp`, built into the environment of the given Python.
#
#   build-kp.sh [--print | --if-possible] [PYTHON]        (PYTHON: default .venv/bin/python)
#
# --print shows the commands that would run and runs none. --if-possible says why and succeeds where the machine does not
# let this user install packages. A second run finds everything in place and does nothing.
#
# A plain `pip install kp` has no wheel to install, and its build clones three repositories; the switches below make it
# take those from Debian's packages and from pybind11's wheel instead. --no-deps, because kp's metadata asks for numpy<2
# while it runs on NumPy 2 as well.
set -euo pipefail

KP=0.9.0
PACKAGES=(libvulkan-dev mesa-vulkan-drivers libfmt-dev cmake make g++ glslc)
mode=run
case "${1:-}" in --print | --if-possible) mode=${1#--}; shift ;; esac
python=${1:-.venv/bin/python}

fail() {
    echo "vulkan: $1" >&2
    [ "$mode" = if-possible ] && exit 0
    exit 1
}

# Shows a command, and runs it unless only asked to show.
step() {
    echo "$*"
    [ "$mode" = print ] || "$@"
}

[ -x "$(command -v "$python")" ] || fail "$python cannot be run; 'make venv' makes the environment"

# 1. Debian's packages
if "$python" -c "import kp, ctypes; ctypes.CDLL('libvulkan.so.1')" 2>/dev/null; then
    built=yes
else
    built=no
fi
if command -v dpkg-query >/dev/null; then
    missing=()
    headers=$("$python" -c "import os, sysconfig as s; print(os.path.exists(s.get_path('include') + '/Python.h'))")
    [ "$headers" = True ] || PACKAGES+=("$("$python" -c 'import sys; print("python%d.%d-dev" % sys.version_info[:2])')")
    for package in "${PACKAGES[@]}"; do
        status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
        [ "$status" = "install ok installed" ] || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        become=()
        if [ "$(id -u)" != 0 ]; then
            become=(sudo)
            if [ "$mode" != print ] && ! sudo -n true 2>/dev/null; then
                fail "the packages ${missing[*]} are missing, and installing them needs root: sudo apt-get install ${missing[*]}"
            fi
        fi
        step "${become[@]}" apt-get update -q || fail "apt-get update failed; is there a network?"
        step "${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
            "${missing[@]}" || fail "apt-get could not install ${missing[*]}"
    fi
elif [ "$built" = no ]; then
    for tool in cmake make g++; do
        [ "$mode" = print ] || command -v "$tool" >/dev/null ||
            fail "this is no Debian, and $tool is missing; install what these Debian packages hold: ${PACKAGES[*]}"
    done
fi

# 2. Kompute
if [ "$built" = no ]; then
    pip=("$python" -m pip install --quiet --disable-pip-version-check)
    step "${pip[@]}" pybind11 || fail "pip could not install pybind11"
    # CMake's own search takes any Python of the PATH; kp's build passes no interpreter on, a toolchain file does.
    command="$(cd "$(dirname "$(command -v "$python")")" && pwd)/$(basename "$python")"
    if [ "$mode" = print ]; then
        cmakedir="\$($python -m pybind11 --cmakedir)"
        toolchain=python.cmake
        echo "echo 'set(PYTHON_EXECUTABLE \"$command\" CACHE FILEPATH \"\" FORCE)' > $toolchain"
        toolchain="\$PWD/$toolchain"
    else
        cmakedir=$("$python" -m pybind11 --cmakedir)
        toolchain=$(mktemp --suffix=.cmake)
        trap 'rm -f "$toolchain"' EXIT
        echo "set(PYTHON_EXECUTABLE \"$command\" CACHE FILEPATH \"\" FORCE)" >"$toolchain"
    fi
    step env CMAKE_TOOLCHAIN_FILE="$toolchain" CMAKE_PREFIX_PATH="$cmakedir" KOMPUTE_OPT_INSTALL=OFF KOMPUTE_OPT_USE_BUILT_IN_FMT=OFF \
        KOMPUTE_OPT_USE_BUILT_IN_PYBIND11=OFF KOMPUTE_OPT_USE_BUILT_IN_VULKAN_HEADER=OFF \
        KOMPUTE_OPT_DISABLE_VK_DEBUG_LAYERS=ON "${pip[@]}" --no-deps "kp==$KP" ||
        fail "kp $KP could not be built; the compiler's output is above"
fi
[ "$mode" = print ] && exit 0

# 3. Does it work?
why=$("$python" - <<'CHECK'
from adaptive_compute.backends.vulkan.runtime import installed

reason = installed()
print("" if reason is True else reason)
CHECK
) || fail "the Vulkan backend could not be asked whether it works"
[ -z "$why" ] || fail "everything is installed, but: $why"
echo "vulkan: ready"
