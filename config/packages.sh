#!/bin/sh
# Installs the Debian packages that are missing: as root by itself, otherwise by saying which.
#   packages.sh run | test | venv
set -eu
case ${1:?run, test or venv} in
run) want="baresip-core ffmpeg chromium xvfb pulseaudio" ;;
test) want="baresip-core ffmpeg chromium xvfb pulseaudio sip-tester flite util-linux openssl redis-server" ;;
venv) want="python3.11-venv" ;;
*) echo "packages.sh: run, test or venv" >&2; exit 2 ;;
esac
missing=""
for package in $want; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" -eq 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # shellcheck disable=SC2086 # a list of words
  apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
  echo "These Debian packages are missing; install them as root: apt-get install$missing" >&2
  [ "$1" = run ] || exit 1
fi
