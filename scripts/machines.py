"""Bare Debian machines for the scripts that test on other releases: folders made by debootstrap, entered by chroot.

A machine's mounts are in a mount namespace of its own, which ends with the command. Root is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

OLD, NEW = "bookworm", "trixie"

MOUNT = 'mount --bind /proc "$root/proc" && mount --rbind /dev "$root/dev"'

ENTER = f"""
root=$1; shift
{MOUNT} || exit 1
exec chroot "$root" env HOME=/root DEBIAN_FRONTEND=noninteractive \\
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""


def need_root(program: str) -> None:
    """End the program with the exit code of a set-up that cannot be done here, unless it runs as root."""
    if os.geteuid() != 0:
        print(f"{program}: debootstrap and chroot need root: run it as root", file=sys.stderr)
        raise SystemExit(2)


def make(root: Path, release: str, *packages: str) -> None:
    """Make a Debian of that release in the folder, with those packages and no more than they need; about 20 s."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    log = root.with_name(f"{root.name}.log")
    include = ",".join(("ca-certificates", *packages))
    command = ["debootstrap", "--variant=minbase", f"--include={include}", release, str(root)]
    with log.open("w") as output:
        if subprocess.run(command, check=False, stdout=output, stderr=subprocess.STDOUT).returncode != 0:
            print("\n".join(log.read_text().splitlines()[-10:]), file=sys.stderr)
            print(f"cannot make a Debian {release} in {root}: debootstrap failed, see above", file=sys.stderr)
            raise SystemExit(2)
    for name in ("etc/ssl/certs/ca-certificates.crt", "etc/resolv.conf", "etc/hosts"):
        if Path("/", name).exists():
            shutil.copy(Path("/", name).resolve(), root / name)
    # A service that is only installed for its program is not to start.
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)


def command_in(root: Path, *words: str) -> list[str]:
    """Return the command that runs `words` in the machine."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh", str(root), *words]


def run_in(root: Path, *words: str) -> bool:
    """Run a command in the machine; what it prints is for the reader."""
    return subprocess.run(command_in(root, *words), check=False).returncode == 0


def install_in(root: Path, *packages: str) -> None:
    """Install Debian packages in the machine."""
    wanted = " ".join(packages)
    script = f"apt-get -qq update && apt-get -qq install -y --no-install-recommends {wanted} >/dev/null"
    if not run_in(root, "sh", "-c", script):
        print(f"cannot install {wanted} in {root}: see above", file=sys.stderr)
        raise SystemExit(2)
