#!/usr/bin/env python3
"""Measures how cvm-export fetches a disk image, beside the peers that are installed, and holds it to goals.

    cargo build --release
    python3 benches/download.py [--modes http,tls,disk,growth] [--runs 5] [--peers FOLDER] [--image FILE]

Needed are Python's standard library, nginx, openssl, curl, GNU time, sfdisk and mkfs.ext4, 7 GiB in --memory (a
folder in memory) and 5 GiB in --disk (a folder on a disk). Peers are `aria2c`, `rclone`, `s5cmd`, `coscmd` and the
package `cos-python-sdk-v5`, looked up on PATH and in --peers (the bin folder of a virtual environment); one that is
not there is left out. The image is 4 GiB: a partition table and an ext4 file system with 1230 MiB of files from
/usr; --image reuses one, or keeps the one that is made. nginx serves it on loopback, from memory. Commands are run
in turn (A B C, A B C, …) after one warm-up round, the slow ones in rounds of their own without one; shown are
medians with the smallest and the largest value. Each output is compared with the image.

    http     plain HTTP, output in memory
    tls      TLS, output in memory; nginx offers HTTP/2 and HTTP/1.1
    disk     plain HTTP, output on a disk, fsync included in the time
    growth   only on request: peak memory for an object of 16 GiB less that for one of 4 GiB
"""

import argparse
import collections
import contextlib
import functools
import json
import math
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIB, GIB = 1 << 20, 1 << 30
BLOCK_BYTES, PART_BYTES, IMAGE_BYTES, LARGE_BYTES = 4096, 8 * MIB, 4 * GIB, 16 * GIB
BUCKET, REGION, KEY, LARGE_KEY = "bench-1250000000", "ap-guangzhou", "disk.raw", "large.raw"
OURS, CURL, CURL_HTTP1, LIMIT = "cvm-export", "curl", "curl --http1.1", "4 curls to /dev/null"
ARIA2, RCLONE, S5CMD = "aria2c -x16 -s16", "rclone (s3)", "s5cmd -c 16 -p 16"
SDK_CRC, SDK, COSCMD = "cos-python-sdk, CRC on", "cos-python-sdk, CRC off", "coscmd"
SLOW = {SDK_CRC, COSCMD}
MODES = {
    "http": ("HTTP, output in memory", [OURS, CURL, LIMIT, ARIA2, RCLONE, S5CMD, SDK, SDK_CRC, COSCMD]),
    "tls": ("TLS, output in memory", [OURS, CURL, CURL_HTTP1, LIMIT, RCLONE, S5CMD]),
    "disk": ("HTTP, output on disk, fsync included", [OURS, CURL, RCLONE, S5CMD]),
    "growth": ("Objects of 4 and 16 GiB with the same files in them", [OURS]),
}

NGINX = """
worker_processes 2; daemon off; pid nginx.pid; error_log error.log;
events {{ worker_connections 256; }}
http {{
  log_format short "$request_method $status $http_range"; access_log access.log short;
  sendfile on; tcp_nopush on; keepalive_requests 100000; root www;
  client_body_temp_path spool; proxy_temp_path spool; fastcgi_temp_path spool;
  uwsgi_temp_path spool; scgi_temp_path spool;
  map $uri $crc64 {{ default ""; include checksums; }}
  add_header x-cos-hash-crc64ecma $crc64;
  server {{
    listen 127.0.0.1:{port}; listen 127.0.0.1:{tls_port} ssl http2;
    ssl_certificate server.pem; ssl_certificate_key server.key; ssl_protocols TLSv1.2 TLSv1.3;
  }}
}}
"""

SDK_GET = """
import sys
from qcloud_cos import CosConfig, CosS3Client
region, bucket, key, path, crc = sys.argv[1:]
client = CosS3Client(CosConfig(Region=region, SecretId="x", SecretKey="y", Scheme="http"))
client.download_file(Bucket=bucket, Key=key, DestFilePath=path, EnableCRC=crc == "crc")
"""

COSCMD_SETTINGS = f"[common]\nsecret_id = x\nsecret_key = y\nbucket = {BUCKET}\nregion = {REGION}\nschema = http\n"


class Child:
    """A command in a session of its own; all of it is killed when `limit` seconds have passed."""

    def __init__(self, words, environment, limit, errors=subprocess.DEVNULL):
        self.begin = time.perf_counter()
        self.is_late = False
        silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": errors}
        self.process = subprocess.Popen(words, env=environment, start_new_session=True, **silent)
        self.timer = threading.Timer(limit, self.time_out)
        self.timer.daemon = True
        self.timer.start()

    def time_out(self):
        self.is_late = True
        self.kill()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def wait(self):
        """Waits for its end; returns its exit code, seconds, and seconds of CPU."""
        try:
            _, status, usage = os.wait4(self.process.pid, 0)
        except BaseException:
            self.kill()
            raise
        seconds = time.perf_counter() - self.begin
        self.timer.cancel()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode, seconds, usage.ru_utime + usage.ru_stime


class Tool(typing.NamedTuple):
    """A program, and what makes its arguments of a key and the path of the output."""

    program: str
    environment: dict
    arguments: typing.Callable

    def words(self, key, output):
        return [self.program, *self.arguments(key, output)]


def find_tools(options, home, url, certificate=None):
    """The tools that are installed, set up for the origin at `url`: name -> Tool.

    The SDK and coscmd name the bucket in the host only; an origin on loopback is a proxy to them.
    """
    path = os.pathsep.join(filter(None, [options.peers, os.environ.get("PATH", "")]))
    find = functools.partial(shutil.which, path=path)
    basic = {"HOME": str(home), "PATH": path, "LC_ALL": "C.UTF-8"}
    basic |= {"SSL_CERT_FILE": str(certificate)} if certificate else {}
    tencent = basic | {"TENCENTCLOUD_SECRET_ID": "x", "TENCENTCLOUD_SECRET_KEY": "y"}
    amazon = basic | {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": REGION}
    proxied = basic | {"http_proxy": url}
    curl = ["-sSf"] + (["--cacert", str(certificate)] if certificate else [])
    aria2 = ["-q", "--no-conf", "-x16", "-s16", "--file-allocation=none", "--dir=/"]
    s3 = ["-q", "--s3-provider=Other", "--s3-env-auth", f"--s3-endpoint={url}", "--s3-force-path-style"]
    s5cmd = ["--endpoint-url", url, "cp", "-c", "16", "-p", "16"]
    settings = home / "cos.conf"
    settings.write_text(COSCMD_SETTINGS)
    coscmd = ["-c", settings, "-l", home / "cos.log", "download", "-f"]
    pythons = [shutil.which("python3", path=options.peers or ""), sys.executable]
    python = next((python for python in pythons if python and has_sdk(python, basic)), None)

    def ours(key, to):
        return ["download", f"cos://{BUCKET}/{key}", "--region", REGION, "--endpoint-url", url, "--to", to, "-q"]

    def four_curls(key, _):
        quarters = [f"{IMAGE_BYTES * part // 4}-{IMAGE_BYTES * (part + 1) // 4 - 1}" for part in range(4)]
        command = " ".join(["curl", *curl, "--http1.1", "-o", "/dev/null", f"{url}/{key}", "-r"])
        return ["-c", " & ".join(f"{command} {quarter}" for quarter in quarters) + " & wait"]

    rows = [
        (OURS, options.binary, tencent, ours),
        (CURL, find("curl"), basic, lambda key, to: [*curl, "-o", to, f"{url}/{key}"]),
        (CURL_HTTP1, find("curl"), basic, lambda key, to: [*curl, "--http1.1", "-o", to, f"{url}/{key}"]),
        (LIMIT, find("curl") and "sh", basic, four_curls),
        (ARIA2, find("aria2c"), basic, lambda key, to: [*aria2, f"--out={str(to)[1:]}", f"{url}/{key}"]),
        (RCLONE, find("rclone"), amazon, lambda key, to: ["copyto", *s3, f":s3:{BUCKET}/{key}", to]),
        (S5CMD, find_s5cmd(find), amazon, lambda key, to: [*s5cmd, f"s3://{BUCKET}/{key}", to]),
        (SDK, python, proxied, lambda key, to: ["-c", SDK_GET, REGION, BUCKET, key, to, ""]),
        (SDK_CRC, python, proxied, lambda key, to: ["-c", SDK_GET, REGION, BUCKET, key, to, "crc"]),
        (COSCMD, find("coscmd"), proxied, lambda key, to: [*coscmd, key, to]),
    ]
    return {name: Tool(program, environment, words) for name, program, environment, words in rows if program}


def has_sdk(python, environment):
    return Child([python, "-c", "import qcloud_cos"], environment, limit=30).wait()[0] == 0


def find_s5cmd(find):
    """The program itself, where s5cmd came as a Python package whose command only calls it."""
    command = find("s5cmd")
    folder = pathlib.Path(command or "/nowhere").resolve().parent.parent
    return next(folder.glob("lib/python*/site-packages/s5cmd/bin/s5cmd"), command)


def make_image(image, scratch):
    """Makes a disk image with one ext4 partition of 1230 MiB of files."""
    tree, room = scratch / "tree", 1230 * MIB
    for folder, _, names in os.walk("/usr"):
        for source in sorted(pathlib.Path(folder, name) for name in names):
            is_plain = source.is_file() and not source.is_symlink() and os.access(source, os.R_OK)
            if is_plain and source.stat().st_size <= room:
                room -= source.stat().st_size
                target = tree / source.relative_to("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        if room < MIB:
            break
    with open(image, "wb") as file:
        file.truncate(IMAGE_BYTES)
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    run = functools.partial(subprocess.run, check=True, stdout=subprocess.DEVNULL, timeout=300, env={"PATH": path})
    run(["sfdisk", "--quiet", image], input=b"label: dos\nstart=2048, type=83\n")
    size = f"{(IMAGE_BYTES - MIB) // 1024}k"
    run(["mkfs.ext4", "-q", "-F", "-d", tree, "-E", f"offset={MIB}", image, size])
    shutil.rmtree(tree)


def count_non_zero_bytes(image):
    """The bytes in blocks of 4 KiB that are not all zeros."""
    zeros, blocks = bytes(BLOCK_BYTES), 0
    with open(image, "rb") as file:
        while data := file.read(MIB):
            blocks += sum(data[at : at + BLOCK_BYTES] != zeros for at in range(0, len(data), BLOCK_BYTES))
    return blocks * BLOCK_BYTES


class Origin:
    """An nginx that serves `folder`/www on loopback and ends with the block."""

    def __init__(self, folder, options):
        self.folder, self.www = folder, folder / "www"
        self.address = ("127.0.0.1", options.port)
        self.url = f"http://127.0.0.1:{options.port}"
        self.tls_url, self.certificate = f"https://127.0.0.1:{options.tls_port}", folder / "ca.pem"
        (self.www / BUCKET).mkdir(parents=True)
        folder.chmod(0o755)  # nginx started by root reads as another user
        self.certify()
        (folder / "checksums").touch()
        configuration = folder / "nginx.conf"
        configuration.write_text(NGINX.format(port=options.port, tls_port=options.tls_port))
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
        nginx = shutil.which("nginx", path=path) or sys.exit("nginx is missing")
        self.process = subprocess.Popen([nginx, "-p", folder, "-c", configuration], stderr=subprocess.DEVNULL)

    def certify(self):
        key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        authority = ["-subj", "/CN=benchmark", "-keyout", "ca.key", "-out", "ca.pem"]
        hosts = [f"DNS:{BUCKET}.cos.{REGION}.myqcloud.com", "DNS:service.cos.myqcloud.com", "DNS:localhost"]
        names = "subjectAltName=" + ",".join([*hosts, "IP:127.0.0.1"])
        server = ["-subj", "/CN=localhost", "-addext", names, "-addext", "basicConstraints=CA:FALSE"]
        server += ["-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.pem"]
        for arguments in (authority, server):
            subprocess.run([*key, *arguments], cwd=self.folder, check=True, capture_output=True, timeout=60)

    def publish(self, key, checksum):
        """Serves www/`key` in path style, too, and with its checksum."""
        with open(self.folder / "checksums", "a") as file:
            file.write(f"/{key} {checksum}; /{BUCKET}/{key} {checksum};\n")
        os.link(self.www / key, self.www / BUCKET / key)
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(key, str(checksum))

    def wait_for(self, key, text="200 OK"):
        """Waits until the answer to a HEAD of `key` holds `text`."""
        end = time.monotonic() + 10
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(self.address, timeout=1) as connection:
                connection.sendall(f"HEAD /{key} HTTP/1.0\r\n\r\n".encode())
                if text in connection.recv(65536).decode():
                    return
            time.sleep(0.1)
        log = (self.folder / "error.log").read_text()
        sys.exit(f"nginx does not serve {key}; its exit code is {self.process.poll()}, its log:\n{log}")

    def requests(self):
        time.sleep(0.1)  # a line is written after its answer
        with open(self.folder / "access.log", "rb") as file:
            return sum(1 for _ in file)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=10)


class Bench:
    """Runs tools and keeps what is measured: mode -> name -> list of figures."""

    def __init__(self, options, folder, origin):
        self.options, self.folder, self.origin = options, folder, origin
        self.home = folder / "home"
        self.home.mkdir()
        self.time = shutil.which("time") or sys.exit("GNU time is missing")
        self.seen = {}

    def publish(self, key):
        """Has the origin serve www/`key` with the checksum that a first run without one finds."""
        self.origin.wait_for(key)
        tool, output = find_tools(self.options, self.home, self.origin.url)[OURS], self.folder / "first.raw"
        words = [*tool.words(key, output), "--output", "json"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "timeout": self.options.limit}
        done = subprocess.run(words, env=tool.environment, check=True, **quiet)
        output.unlink()
        self.origin.publish(key, int(json.loads(done.stdout)["items"][0]["crc64"]))

    def run(self, tool, key, output, is_synced):
        """Runs a tool once; returns its figures, or the text that says why there are none.

        A process is charged for the image that forked it, too; GNU time is small, this program is not.
        """
        peak, errors = self.folder / "peak", self.folder / "errors"
        image = self.origin.www / key
        output.unlink(missing_ok=True)
        before = self.origin.requests()
        words = [self.time, "--quiet", "--format", "%M", "--output", peak, *tool.words(key, output)]
        with open(errors, "wb") as file:
            child = Child(words, tool.environment, self.options.limit, file)
            code, wall, cpu = child.wait()
        if child.is_late:
            return f"took more than {self.options.limit:.0f} s"
        if code != 0:
            return f"ended with {code}: {errors.read_text(errors='replace')[-500:].strip()}"
        figures = {"gib": image.stat().st_size / GIB, "wall": wall, "cpu": cpu}
        figures |= {"peak_mib": int(peak.read_text()) / 1024, "requests": self.origin.requests() - before}
        if output.exists():
            begin = time.perf_counter()
            if is_synced:
                with open(output, "rb+") as file:
                    os.fsync(file.fileno())
                figures["wall"] += time.perf_counter() - begin
            figures["allocated"] = output.stat().st_blocks * 512
            if Child(["cmp", "-s", output, image], None, self.options.limit).wait()[0] != 0:
                return "wrote another file than the image"
            output.unlink()
        return figures

    def rounds(self, mode, jobs, output, runs, warm_up):
        """Runs the jobs, name -> (tool, key), in turn; one that fails is left out from there on."""
        seen = self.seen.setdefault(mode, collections.defaultdict(list))
        for number in range(-warm_up, runs):
            for name, (tool, key) in list(jobs.items()):
                figures = self.run(tool, key, output, is_synced=mode == "disk")
                if isinstance(figures, str):
                    tell(f"{mode}: {name} {figures}")
                    del jobs[name]
                    seen.pop(name, None)
                elif number >= 0:
                    tell(f"{mode}: {name} {figures['wall']:.2f} s")
                    seen[name].append(figures)

    def measure(self, mode):
        origin = (self.origin.tls_url, self.origin.certificate) if mode == "tls" else (self.origin.url,)
        tools = find_tools(self.options, self.home, *origin)
        fast, slow = {}, {}
        for name in MODES[mode][1]:
            if name in tools:
                (slow if name in SLOW else fast)[name] = (tools[name], KEY)
            else:
                tell(f"{mode}: {name} is not installed and left out")
        if mode == "growth":
            fast = {f"{OURS}, 4 GiB": (tools[OURS], KEY), f"{OURS}, 16 GiB": (tools[OURS], LARGE_KEY)}
        with tempfile.TemporaryDirectory(dir=self.options.disk if mode == "disk" else self.folder) as folder:
            output = pathlib.Path(folder) / "output.raw"
            self.rounds(mode, fast, output, self.options.runs, warm_up=1)
            self.rounds(mode, slow, output, self.options.slow_runs, warm_up=0)

    def middle(self, mode, name, figure):
        """The median of a figure; not a number where it was not measured."""
        runs = self.seen.get(mode, {}).get(name)
        return statistics.median(run[figure] for run in runs) if runs else math.nan

    def goals(self, needed_bytes):
        """What is aimed at: (text, figure, sense, floor, stretch)."""

        def wall(mode, other):
            return self.middle(mode, OURS, "wall") / self.middle(mode, other, "wall")

        def peak(name):
            return self.middle("growth", f"{OURS}, {name}", "peak_mib")

        allocated = self.middle("http", OURS, "allocated") / needed_bytes
        return [
            ("HTTP wall ÷ curl", wall("http", CURL), "≤", 0.80, 0.70),
            ("HTTP wall ÷ s5cmd", wall("http", S5CMD), "≤", 0.55, 0.50),
            ("HTTP wall ÷ rclone", wall("http", RCLONE), "≤", 0.55, 0.50),
            ("HTTP wall ÷ SDK with CRC", wall("http", SDK_CRC), "≤", 0.10, None),
            ("HTTP wall ÷ coscmd", wall("http", COSCMD), "≤", 0.06, None),
            ("HTTP throughput ÷ 4 curls to /dev/null", 1 / wall("http", LIMIT), "≥", 0.65, 0.75),
            ("TLS wall ÷ curl", wall("tls", CURL), "≤", 0.78, 0.68),
            ("TLS wall ÷ s5cmd", wall("tls", S5CMD), "≤", 0.55, 0.50),
            ("TLS wall ÷ rclone", wall("tls", RCLONE), "≤", 0.55, 0.50),
            ("disk with fsync, wall ÷ curl", wall("disk", CURL), "≤", 0.60, 0.53),
            ("HTTP CPU s per GiB", self.middle("http", OURS, "cpu") / 4, "≤", 0.65, 0.55),
            ("peak MiB at 8 connections", self.middle("http", OURS, "peak_mib"), "≤", 24, None),
            ("peak MiB, 16 GiB less 4 GiB", peak("16 GiB") - peak("4 GiB"), "≤", 2, None),
            ("allocated ÷ non-zero blocks of 4 KiB", allocated, "≤", 1.01, None),
            ("requests", self.middle("http", OURS, "requests"), "≤", IMAGE_BYTES // PART_BYTES + 2, None),
        ]


def stop(*_):
    """Ends as after an error, so that all is tidied up; `timeout` sends its signal twice."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def require(binary):
    if not os.access(binary, os.X_OK):
        sys.exit(f"{binary} is missing; run `cargo build --release` first")


def tell(text):
    print(text, file=sys.stderr, flush=True)


def spread(values, digits=2):
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def print_row(*cells):
    print("| " + " | ".join(map(str, cells)) + " |")


def print_tables(bench):
    for mode, tools in bench.seen.items():
        print(f"\n{MODES[mode][0]}:\n")
        print_row("tool", "runs", "wall s", "GiB/s", "CPU s per GiB", "peak MiB", "allocated GiB", "requests")
        print_row(*["---"] * 8)
        for name, runs in tools.items():
            speed = statistics.median(run["gib"] / run["wall"] for run in runs)
            cpu, peaks = [run["cpu"] / run["gib"] for run in runs], [run["peak_mib"] for run in runs]
            allocated = f"{runs[0]['allocated'] / GIB:.3f}" if "allocated" in runs[0] else "none"
            requests = max(run["requests"] for run in runs)
            wall = spread([run["wall"] for run in runs])
            print_row(name, len(runs), wall, f"{speed:.2f}", spread(cpu), spread(peaks, 1), allocated, requests)


def print_goals(goals):
    print()
    print_row("goal", "figure", "floor", "met", "stretch", "met")
    print_row(*["---"] * 6)
    for text, figure, sense, *bounds in goals:
        cells = [text, "not measured" if math.isnan(figure) else f"{figure:.4g}"]
        for bound in bounds:
            is_met = bound is not None and (figure <= bound if sense == "≤" else figure >= bound)
            is_open = bound is None or math.isnan(figure)
            cells += ["" if bound is None else f"{sense} {bound}", "" if is_open else "yes" if is_met else "no"]
        print_row(*cells)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", default="http,tls,disk", help="any of http,tls,disk,growth")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--slow-runs", type=int, default=1, help="runs of coscmd and of the SDK with CRC")
    parser.add_argument("--limit", type=float, default=180, help="seconds after which a command is killed")
    parser.add_argument("--image", type=pathlib.Path, help="an image of 4 GiB to reuse; made there if it is missing")
    parser.add_argument("--memory", default="/dev/shm", help="a folder in memory, for origin and output")
    parser.add_argument("--disk", default="/var/tmp", help="a folder on a disk, for the output of `disk`")
    parser.add_argument("--port", type=int, default=18180)
    parser.add_argument("--tls-port", type=int, default=18443)
    parser.add_argument("--peers", help="a folder with the peers' commands")
    parser.add_argument("--binary", default=str(ROOT / "target/release/cvm-export"))
    parser.add_argument("--json", type=pathlib.Path, help="where to write the raw figures")
    options = parser.parse_args()
    options.modes = options.modes.split(",")
    if unknown := set(options.modes) - set(MODES):
        parser.error(f"unknown modes: {', '.join(sorted(unknown))}")
    require(options.binary)
    return options


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, stop)
    copy = functools.partial(subprocess.run, check=True, timeout=600)
    with tempfile.TemporaryDirectory(dir=options.memory) as name, Origin(pathlib.Path(name), options) as origin:
        bench = Bench(options, pathlib.Path(name), origin)
        served, large = origin.www / KEY, origin.www / LARGE_KEY
        image = options.image or served
        if not image.exists():
            make_image(image, bench.folder)
        if image.stat().st_size != IMAGE_BYTES:
            sys.exit(f"{image} is not an image of 4 GiB")
        if image != served:
            copy(["cp", "--sparse=always", image, served])
        needed_bytes = count_non_zero_bytes(served)
        bench.publish(KEY)
        if "growth" in options.modes:
            copy(["cp", "--sparse=always", served, large])
            os.truncate(large, LARGE_BYTES)
            bench.publish(LARGE_KEY)
        try:
            for mode in options.modes:
                bench.measure(mode)
        finally:  # what was measured before an interruption is shown, too
            print(f"{needed_bytes} of {IMAGE_BYTES} bytes are in blocks of 4 KiB that are not all zeros.")
            print_tables(bench)
            print_goals(bench.goals(needed_bytes))
            if options.json:
                raw = {"non_zero_bytes": needed_bytes, "modes": bench.seen}
                options.json.write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
