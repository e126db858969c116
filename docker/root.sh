#!/bin/sh
# Turns a base into the image's root: Python and what it links, a user, and nothing that builds or installs.
set -eu

# What installs packages, and Perl, which only installing needs; dpkg stays, whose list scanners read.
dpkg --purge --force-depends --force-remove-essential --force-remove-protected apt libapt-pkg6.0 perl-base >/dev/null

# Python's own installers, and what of its library only development uses.
python3 - <<'PYTHON'
import shutil
import sysconfig
from pathlib import Path

library = Path(sysconfig.get_path("stdlib"))
gone = ["ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtledemo", "turtle.py", "pydoc_data"]
paths = [library / name for name in gone]
paths += list(library.glob("config-*"))
for folder in {Path(path) for name in ("purelib", "platlib") for path in [sysconfig.get_path(name)]}:
    for name in ("pip", "setuptools", "wheel", "_distutils_hack", "pkg_resources", "distutils-precedence.pth"):
        paths += [*folder.glob(name), *folder.glob(f"{name}-*")]
paths += list(Path("/usr/local/bin").glob("pip*")) + list(Path("/usr/local/bin").glob("idle*"))
paths += list(Path("/usr/local/bin").glob("2to3*")) + list(Path("/usr/local/include").glob("python*"))
for path in paths:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
PYTHON

# Read-only at run time: what is not compiled now would be compiled at every start.
python3 -m compileall -q -f --invalidation-mode unchecked-hash "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

rm -rf /etc/apt /var/lib/apt /var/cache/apt /var/cache/debconf/*-old /var/log/* /var/cache/ldconfig /tmp/* /root/.cache \
    /usr/share/man /usr/share/info /usr/share/locale /usr/share/lintian /usr/share/bash-completion
# Licences are kept, as they ask for.
find /usr/share/doc -type f ! -name copyright -delete
find /usr/share/doc -mindepth 1 -type d -empty -delete
find / -xdev -type f -perm /6000 -exec chmod a-s {} +

groupadd --gid 10001 erg
useradd --uid 10001 --gid erg --no-create-home --home-dir /var/cache/erg --shell /usr/sbin/nologin erg
# Where the chart mounts models, settings and the cache.
install -d -o root -g root -m 0755 /models /etc/erg
install -d -o erg -g erg -m 0755 /var/cache/erg
rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow-
