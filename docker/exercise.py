#!/usr/bin/env python3
"""Carries out a Dockerfile's steps without Docker, and uses the result as compose.yaml says.

    FROM ─► a fresh Debian root (debootstrap) with what the base image adds ─► RUN, COPY, ... in it
    last stage ─► read-only root, /data alone writable, user of USER, no capabilities ─► keys add, demo, serve, HEALTHCHECK, SIGTERM

The steps are read from the Dockerfile and compose.yaml, so that they cannot drift from what this tries. Needs root, debootstrap, PyYAML,
and for `rust:` bases a toolchain of that version. Roots are kept in --work and used again; COPY takes what git has committed.

    docker/exercise.py docker/Dockerfile --work /var/tmp/anchorite-docker --toolchain "$(rustc --print sysroot)"
"""

import argparse, contextlib, ctypes, json, os, re, shlex, shutil, signal, socket, subprocess, sys, time, urllib.request
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
# What distroless/cc has of Debian; no shell among it.
DISTROLESS = ["base-files", "netbase", "tzdata", "libc6", "libgcc-s1", "libgomp1", "libstdc++6", "gcc-12-base"]


def run(*command, **options):
    print("+", shlex.join(map(str, command)), flush=True)
    return subprocess.run([str(part) for part in command], check=True, **options)


def instructions(text):
    """(word, rest) of each; continued lines joined, comments left out."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", " ", lines).splitlines():
        if line.strip():
            word, rest = line.strip().split(None, 1)
            yield word, rest.strip()


@contextlib.contextmanager
def mounted(*pairs):
    """(what, where, options) for mount(8), taken away again in any case."""
    done = []
    try:
        for what, where, *options in pairs:
            Path(where).mkdir(parents=True, exist_ok=True)
            run("mount", *options, what, where)
            done.append(where)
        yield
    finally:
        for where in reversed(done):
            run("umount", where)


class Stage:
    def __init__(self, name, base, root):
        self.name, self.base, self.root = name, base, root
        self.env, self.workdir, self.user, self.facts = {}, "/", None, {}

    def inside(self, path):
        return self.root / str(path).lstrip("/")


class Exercise:
    def __init__(self, options):
        self.options, self.stages = options, []

    # FROM

    def debian(self):
        root = self.options.work / "bookworm"
        if not (root / "etc/debian_version").exists():
            run("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", root, self.options.mirror)
        return root

    def base(self, base, root):
        if root.exists():
            return print(f"# {root} is used again", flush=True)
        if base.startswith("gcr.io/distroless/cc-debian12:"):
            return self.distroless(root)
        run("cp", "-a", self.debian(), root)
        if self.options.apt_conf:
            shutil.copy(self.options.apt_conf, root / "etc/apt/apt.conf.d/99exercise")
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        if self.options.ca_certificates:
            shutil.copy(self.options.ca_certificates, root / "etc/ssl/certs/ca-certificates.crt")
        if re.match(r"python:3\.11-slim-bookworm$", base):
            packages = "apt-get update && apt-get install -y --no-install-recommends python3 python3-pip python-is-python3"
            with self.system(root):
                run("chroot", root, "sh", "-ec", packages)
        elif not re.match(r"rust:[\d.]+-slim-bookworm$", base):
            sys.exit(f"no root is known for the base image {base}")

    def distroless(self, root):
        debs = self.options.work / "debs"
        debs.mkdir(exist_ok=True)
        build = self.stages[0]
        with self.system(build.root):
            run("chroot", build.root, "sh", "-ec", "apt-get update && mkdir -p /debs && cd /debs && apt-get download " + " ".join(DISTROLESS))
        root.mkdir()
        for deb in build.inside("/debs").glob("*.deb"):
            run("dpkg", "-x", deb, root)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
        (root / "etc/group").write_text("root:x:0:\nnonroot:x:65532:\n")
        (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
        shutil.copy(build.inside("/etc/ssl/certs/ca-certificates.crt"), root / "etc/ssl/certs/")
        (root / "tmp").mkdir(mode=0o1777, exist_ok=True)

    @contextlib.contextmanager
    def system(self, root, base=""):
        pairs = [("proc", root / "proc", "-t", "proc"), ("/dev", root / "dev", "--bind")]
        if base.startswith("rust:"):
            pairs.append((self.options.toolchain, root / "usr/local/toolchain", "--bind", "-o", "ro"))
            if self.options.cargo_registry:
                pairs.append((self.options.cargo_registry, root / "usr/local/cargo/registry", "--bind"))
        with mounted(*pairs):
            yield

    def do_from(self, rest):
        words = rest.split()
        name = words[2] if len(words) == 3 else "last"
        # Both Dockerfiles build the program in the same way.
        root = self.options.work / (name if words[0].startswith("rust:") else f"{self.options.dockerfile.name}-{name}")
        self.base(words[0], root)
        self.stages.append(Stage(name, words[0], root))
        if words[0].startswith("rust:"):
            self.stages[-1].env["CARGO_HOME"] = "/usr/local/cargo"
            self.do_run(f"rustc --version | grep -F ' {words[0][5:].split('-')[0]} '")

    # In a stage

    def do_run(self, rest):
        stage = self.stages[-1]
        env = {"PATH": "/usr/local/toolchain/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **stage.env}
        env |= dict(pair.split("=", 1) for pair in self.options.env)
        with self.system(stage.root, stage.base):
            run("chroot", stage.root, "env", "-i", "-C", stage.workdir, *(f"{k}={v}" for k, v in env.items()), "sh", "-ec", rest)

    def do_copy(self, rest):
        stage = self.stages[-1]
        words = rest.split()
        flags = dict(word[2:].split("=") for word in words if word.startswith("--"))
        source, target = [word for word in words if not word.startswith("--")]
        into = stage.inside(os.path.join(stage.workdir, target))
        if "from" not in flags:
            if source == ".":
                run("sh", "-ec", f"git -C {REPOSITORY} archive {self.options.commit} | tar x -C {into}")
            else:
                shutil.copy(REPOSITORY / source, into)
            return
        of = next(other for other in self.stages if other.name == flags["from"]).inside(source)
        into.parent.mkdir(parents=True, exist_ok=True)
        run("cp", "-rT", of, into)
        run("chown", "-R", flags.get("chown", "0:0"), into)

    def do_workdir(self, rest):
        self.stages[-1].workdir = rest
        self.stages[-1].inside(rest).mkdir(parents=True, exist_ok=True)

    def do_env(self, rest):
        self.stages[-1].env |= dict(pair.split("=", 1) for pair in shlex.split(rest))

    def do_user(self, rest):
        self.stages[-1].user = tuple(map(int, rest.split(":")))

    def fact(word):
        return lambda self, rest: self.stages[-1].facts.__setitem__(word, rest)

    do_volume, do_expose, do_stopsignal = fact("VOLUME"), fact("EXPOSE"), fact("STOPSIGNAL")
    do_healthcheck, do_entrypoint, do_cmd = fact("HEALTHCHECK"), fact("ENTRYPOINT"), fact("CMD")

    def build(self):
        for word, rest in instructions(self.options.dockerfile.read_text()):
            print(f"# {word} {rest}", flush=True)
            getattr(self, f"do_{word.lower()}")(rest)

    # What the last stage does

    def command(self, arguments, env=None):
        """As a container of compose.yaml: this user, this root, nothing gained by running a file."""
        stage = self.stages[-1]
        uid, gid = stage.user

        def enter():
            os.chroot(self.view)
            os.chdir("/")
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)

        print("+", stage.base, arguments, flush=True)
        return subprocess.Popen(arguments, env={**stage.env, **(env or {})}, preexec_fn=enter, stdout=subprocess.PIPE, text=True)

    def ends_well(self, arguments, env=None):
        child = self.command(arguments, env)
        said, _ = child.communicate(timeout=600)
        assert child.returncode == 0, f"{arguments} ended with {child.returncode}: {said}"
        return said

    def use(self):
        stage = self.stages[-1]
        shells = [name for name in ("sh", "bash", "dash", "busybox", "apt-get", "perl") for at in stage.root.glob(f"**/{name}") if at.is_file()]
        assert not shells, f"the last stage has {shells}"
        assert stage.user[0] != 0
        self.view, data = self.options.work / "view", self.options.work / "data"
        shutil.rmtree(data, ignore_errors=True)
        run("cp", "-a", stage.inside("/data"), data)
        with mounted((stage.root, self.view, "--bind", "-o", "ro"), (data, self.view / "data", "--bind"), ("tmpfs", self.view / "tmp", "-t", "tmpfs"), ("proc", self.view / "proc", "-t", "proc")):
            self.as_compose(stage, data)

    def as_compose(self, stage, data):
        program = json.loads(stage.facts["ENTRYPOINT"])
        compose = yaml.safe_load((REPOSITORY / "docker/compose.yaml").read_text())["services"]["server"]
        assert "Usage" in self.ends_well(program + json.loads(stage.facts["CMD"]))
        try:
            self.ends_well(program + ["keys", "add", "/keys", "me"])
            sys.exit("a file was made outside of /data")
        except AssertionError:
            pass
        shutil.copytree(REPOSITORY / "demo", data / "demo")
        run("chown", "-R", "65532:65532", data)
        key = self.ends_well(program + ["keys", "add", "/data/keys", "me", "--scope", "admin"]).strip()
        self.ends_well(program + ["ingest", "/data/demo/pairs.parquet", "--pool", "/data/main.pool", "--model", "/data/demo/model"])
        port = free_port()
        env = {name: str(value) for name, value in compose["environment"].items()}
        env |= {"ANCHORITE_MODEL": "/data/demo/model", "ANCHORITE_LISTEN": env["ANCHORITE_LISTEN"].replace("0.0.0.0:7801", f"127.0.0.1:{port}")}
        server = self.command(program + compose["command"], env)
        try:
            print(server.stdout.readline().strip(), flush=True)
            health = json.loads(stage.facts["HEALTHCHECK"].split("CMD", 1)[1])
            assert compose["healthcheck"]["test"][1:] == health, "compose.yaml and the Dockerfile check the same"
            until_healthy(lambda: self.command([part.replace("7801", str(port)) for part in health], {}))
            question = json.dumps({"text": "a slice of pizza", "k": 3, "include": ["caption"]}).encode()
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/search", question, headers)
            hits = json.load(urllib.request.urlopen(request, timeout=60))["results"][0]["hits"]
            assert len(hits) == 3, hits
            print("found:", [hit["caption"] for hit in hits], flush=True)
            status = Path(f"/proc/{server.pid}/status").read_text()
            assert re.search(r"CapEff:\s*0+\n", status) and re.search(r"NoNewPrivs:\s*1", status), status
            server.send_signal(getattr(signal, stage.facts["STOPSIGNAL"]))
            assert server.wait(15) == 0, f"SIGTERM ended it with {server.returncode}"
        finally:
            server.kill()
        print("works: keys, ingest, serve, health, search, SIGTERM; root read-only, user", stage.user, flush=True)


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def until_healthy(check, patience=60):
    end = time.monotonic() + patience
    while check().wait(30) != 0:
        assert time.monotonic() < end, "never healthy"
        time.sleep(0.2)


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("dockerfile", type=Path)
    flags.add_argument("--work", type=Path, required=True, help="where roots are made and kept")
    flags.add_argument("--toolchain", type=Path, help="the Rust toolchain that stands for a rust: base image")
    flags.add_argument("--cargo-registry", type=Path, help="cargo's registry folder, to download no crate again")
    flags.add_argument("--commit", default="HEAD", help="what COPY . takes")
    flags.add_argument("--mirror", default="http://deb.debian.org/debian")
    flags.add_argument("--apt-conf", type=Path, help="settings of apt that this machine needs")
    flags.add_argument("--ca-certificates", type=Path, help="a bundle to trust instead of Debian's")
    flags.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for RUN steps alone")
    options = flags.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    exercise = Exercise(options)
    exercise.build()
    exercise.use()


if __name__ == "__main__":
    main()
