# shellcheck shell=bash
# Sourced by every script: the root of the repository, the Python environment, PATH and PYTHONPATH.
# The environment is, in this order:
#   VOX_VENV=DIR              that virtual environment, unchanged; created and filled if it does not exist
#   an active environment     (VIRTUAL_ENV or CONDA_PREFIX) with versions in the ranges of requirements.txt
#   .venv beside this file    created on first use, with the versions in requirements.lock
# VOX_TORCH names the build of PyTorch to install there, such as cpu or cu126, from the index in PIP_EXTRA_INDEX_URL.
# VOX_PYTHON names the interpreter for creating it (default: the first of python3, python3.14 .. 3.11 that fits).

VOX_ROOT=$(unset CDPATH; cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || return 1
export VOX_ROOT LC_ALL=C PYTHONUNBUFFERED=1
export PYTHONPATH=$VOX_ROOT PYTHONSAFEPATH=1  # never import modules from the current folder

# Child processes of a script that has sourced this file inherit everything.
if [ "${VOX_READY:-}" != "$VOX_ROOT" ]; then
  vox_python=
  for vox_try in ${VOX_PYTHON:+"$VOX_PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
    if "$vox_try" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
      vox_python=$vox_try; break
    fi
  done
  if [ -z "$vox_python" ]; then
    echo "path.sh: error: no Python 3.11, 3.12, 3.13 or 3.14 found; install one, or name it: VOX_PYTHON=/path/to/python3" >&2
    return 1
  fi
  # Prints the folder of the environment, which it creates if necessary.
  vox_environment=$("$vox_python" -m utils.make_environment) || return 1
  export PATH=$vox_environment/bin:$VOX_ROOT/utils:$PATH VOX_READY=$VOX_ROOT
  unset vox_python vox_try vox_environment
fi
