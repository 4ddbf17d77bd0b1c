#!/usr/bin/env bash
# Print the command of an installed Chromium or Chrome. VOX_INSTALL_ENGINES=1 lets it install one (Debian, root).
set -euo pipefail
find_one() {
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" && return 0
  done
  return 1
}
find_one && exit 0
if [ "${VOX_INSTALL_ENGINES:-}" != 1 ] || [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "$0: no Chromium is installed (VOX_INSTALL_ENGINES=1 installs it, on a Debian machine to throw away, as root)" >&2
  exit 1
fi
# Other tests may be installing packages at the same time.
apt-get -o DPkg::Lock::Timeout=300 update -qq > /dev/null
DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends chromium > /dev/null
find_one
