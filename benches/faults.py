#!/usr/bin/env python3
"""Shows what cvm-export and its peers make of an origin that misbehaves: a right file, an error, or a wrong file.

    cargo build --release
    python3 benches/faults.py [--size 64] [--limit 12] [--peers FOLDER] [--faults cut1,flip,kill]

Needed is Python's standard library; the peers are those of download.py, and one that is not installed is left out.
The origin is part of this program. It serves random bytes with their true x-cos-hash-crc64ecma and an ETag as
multipart uploads have them, and plays one fault at a time:

    ok        none
    cut1      the first body breaks off at half, once
    cutall    every body breaks off at half (rounded up: one byte arrives)
    short     every body is half as long as asked for, and Content-Length agrees
    flip      one byte of the first body is changed, once; whoever fetches it again gets it right
    norange   Range is ignored: 200 and the whole object
    e503      the first GET and every third after it are answered 503
    shift     every range comes from 1 MiB beside, and Content-Range says so
    kill      the tool is killed (-9) when half of --kill-size has been sent at --kill-speed, and called again

Each run starts in an empty folder. What stands under the final name afterwards is compared with the true bytes,
whatever the exit code says.
"""

import argparse
import http.server
import pathlib
import random
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse

import download
from download import BUCKET, COSCMD, KEY, MIB, OURS, RCLONE, S5CMD, SDK, SDK_CRC, Child, print_row, tell

CURL, CURL_RESUMED, ARIA2_RESUMED = "curl", "curl -C - --retry 5 --retry-all-errors", "aria2c -c"
COLUMNS = [OURS, RCLONE, S5CMD, COSCMD, SDK_CRC, SDK, CURL_RESUMED, ARIA2_RESUMED]
FAULTS = {
    "ok": "none",
    "cut1": "one body cut short",
    "cutall": "every body cut at half",
    "short": "half the body, Content-Length agrees",
    "flip": "one byte changed in one answer",
    "norange": "Range ignored (200, the whole object)",
    "e503": "every third GET answered 503",
    "shift": "another range than asked for, Content-Range says so",
}
PIECE_BYTES = 64 * 1024
ALL_ONES = (1 << 64) - 1


def crc64(data):
    """The CRC-64/XZ of an even number of bytes, two at a time."""
    table = []
    for value in range(1 << 16):
        for _ in range(16):
            value = value >> 1 ^ (0xC96C5795D7870F42 if value & 1 else 0)
        table.append(value)
    crc = ALL_ONES
    for at in range(0, len(data), MIB):
        for word in memoryview(data[at : at + MIB]).cast("H"):
            crc = table[(crc ^ word) & 0xFFFF] ^ crc >> 16
    return crc ^ ALL_ONES


def make_object(mebibytes):
    """Random bytes, the same in every run, and their checksum."""
    source = random.Random(mebibytes)
    content = b"".join(source.randbytes(MIB) for _ in range(mebibytes))
    return content, crc64(content)


class Served:
    """An object, the fault that its answers have, and what has been sent of it."""

    def __init__(self, content, checksum, fault, bytes_per_second=None):
        self.content, self.checksum, self.fault = content, checksum, fault
        self.bytes_per_second = bytes_per_second
        self.lock = threading.Lock()
        self.gets = self.sent_bytes = 0
        self.is_met = False
        self.paid = time.monotonic()
        self.half = threading.Event()

    def number(self):
        with self.lock:
            self.gets += 1
            return self.gets

    def plays(self, fault, once=False):
        """Whether the fault is this one, and notes that it was met; what happens once is told once."""
        with self.lock:
            does = self.fault == fault and not (once and self.is_met)
            self.is_met |= does
            return does

    def count(self, length):
        """Counts bytes that were sent, and waits until they are paid for where there is a speed."""
        with self.lock:
            self.sent_bytes += length
            if self.sent_bytes >= len(self.content) // 2:
                self.half.set()
            if self.bytes_per_second is None:
                return
            self.paid = max(self.paid, time.monotonic()) + length / self.bytes_per_second
            wait = self.paid - time.monotonic()
        time.sleep(max(wait, 0))


class Origin(http.server.ThreadingHTTPServer):
    """Serves whatever `served` is at the moment."""

    daemon_threads = True
    request_queue_size = 64
    served = None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """Clients go away as they like."""


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        served = self.server.served
        if self.is_found():
            self.begin(200, len(served.content), served)

    def do_GET(self):
        served = self.server.served
        if not self.is_found():
            return
        if served.number() % 3 == 1 and served.plays("e503"):
            self.refuse(503, "ServiceUnavailable")
            return
        size = len(served.content)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or served.plays("norange"):
            status, start, end = 200, 0, size
        else:
            status, start, end = 206, int(asked[1]), min(int(asked[2] or size) + 1, size)
        if start >= end:
            self.refuse(416, "InvalidRange")
            return
        if end - start <= size - MIB and served.plays("shift"):
            by = MIB if end + MIB <= size else -min(MIB, start)
            start, end = start + by, end + by
        body = served.content[start:end]
        half = (len(body) + 1) // 2
        if served.plays("flip", once=True):
            body = bytes([body[0] ^ 1]) + body[1:]
        if served.plays("short"):
            body = body[:half]
        self.begin(status, len(body), served, f"bytes {start}-{end - 1}/{size}" if status == 206 else None)
        is_cut = served.plays("cutall") or served.plays("cut1", once=True)
        body = memoryview(body)[: half if is_cut else None]
        for at in range(0, len(body), PIECE_BYTES):
            piece = body[at : at + PIECE_BYTES]
            self.wfile.write(piece)
            served.count(len(piece))
        self.close_connection |= is_cut

    def is_found(self):
        path = urllib.parse.urlsplit(self.path).path  # clients of a proxy name the host, too
        if path in (f"/{KEY}", f"/{BUCKET}/{KEY}"):
            return True
        self.refuse(404, "NoSuchKey")
        return False

    def begin(self, status, length, served, content_range=None):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"6b0622760123456789abcdef01234567-12"')
        self.send_header("Last-Modified", "Mon, 02 Nov 2026 10:00:00 GMT")
        self.send_header("x-cos-hash-crc64ecma", str(served.checksum))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def refuse(self, status, code):
        body = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code><Message/></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(body)


def find_tools(options, home, url):
    tools = download.find_tools(options, home, url)
    if curl := tools.pop(CURL, None):
        def plain(key, to):
            return ["-sSf", "-o", to, f"{url}/{key}"]

        tools[CURL] = curl._replace(arguments=plain)
        resumed = CURL_RESUMED.split()[1:]
        tools[CURL_RESUMED] = curl._replace(arguments=lambda key, to: [*resumed, *plain(key, to)])
    if aria2 := tools.pop(download.ARIA2, None):
        saving = ["-c", "--auto-save-interval=1", "--retry-wait=1"]
        tools[ARIA2_RESUMED] = aria2._replace(arguments=lambda key, to: [*saving, *aria2.arguments(key, to)])
    return tools


def left(output, content):
    """What stands under the final name."""
    if not output.exists():
        return "nothing"
    size = output.stat().st_size
    if size != len(content):
        return "partial file" if size < len(content) else "file too long"
    return "right file" if output.read_bytes() == content else "bad file of full length"


def run(tool, output, limit, errors):
    """Calls a tool; returns its exit code, or None when it had to be killed at the limit."""
    child = Child(tool.words(KEY, output), tool.environment, limit, errors)
    code, _, _ = child.wait()
    return None if child.is_late else code


def outcome(code, limit, served, output):
    standing = left(output, served.content)
    if code == 0:
        if standing != "right file":
            return "**wrong, exit 0**"
        if served.fault != "ok" and not served.is_met:
            return "not met"
        times = served.sent_bytes / len(served.content)
        return "right" if times < 1.05 else f"right ({times:.1f}× bytes)"
    end = f"> {limit:.0f} s" if code is None else f"fails (exit {code})"
    return end if standing == "nothing" else f"{end}, {standing} left"


def kill_and_resume(tool, output, limit, served, errors):
    """Kills a tool at half and calls it again; returns the cells of its row."""
    child = Child(tool.words(KEY, output), tool.environment, limit, errors)
    served.half.wait(limit)
    child.kill()
    child.wait()
    standing = left(output, served.content)
    code = run(tool, output, limit, errors)
    again = served.sent_bytes / len(served.content) - 1
    end = left(output, served.content) if code == 0 else outcome(code, limit, served, output)
    return [f"{again:.2f}", standing, end]


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", default=",".join([*FAULTS, "kill"]), help="those to play, with commas between")
    parser.add_argument("--size", type=int, default=64, help="MiB of the object")
    parser.add_argument("--limit", type=float, default=12, help="seconds after which a peer is killed")
    parser.add_argument("--own-limit", type=float, default=60, help="seconds after which cvm-export is killed")
    parser.add_argument("--kill-size", type=int, default=256, help="MiB of the object of `kill`")
    parser.add_argument("--kill-speed", type=int, default=64, help="MiB a second that `kill` sends at most")
    parser.add_argument("--peers", help="a folder with the peers' commands")
    parser.add_argument("--binary", default=str(download.ROOT / "target/release/cvm-export"))
    parser.add_argument("--verbose", action="store_true", help="let the tools write to stderr")
    options = parser.parse_args()
    options.faults = options.faults.split(",")
    if unknown := set(options.faults) - {*FAULTS, "kill"}:
        parser.error(f"unknown faults: {', '.join(sorted(unknown))}")
    download.require(options.binary)
    return options


def print_outcomes(options, origin, tools, scratch, errors):
    content, checksum = make_object(options.size)
    columns = [name for name in COLUMNS if name in tools]
    print_row("fault", *columns)
    print_row(*["---"] * (len(columns) + 1))
    for fault in (fault for fault in FAULTS if fault in options.faults):
        cells = []
        for name in columns:
            limit = options.own_limit if name == OURS else options.limit
            origin.served = Served(content, checksum, fault)
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                output, begin = pathlib.Path(folder) / KEY, time.monotonic()
                code = run(tools[name], output, limit, errors)
                cells.append(outcome(code, limit, origin.served, output))
            tell(f"{fault}: {name}: {cells[-1]} after {time.monotonic() - begin:.1f} s")
        print_row(FAULTS[fault], *cells)


def print_kills(options, origin, tools, scratch, errors):
    content, checksum = make_object(options.kill_size)
    print()
    print_row("tool", "fetched again ÷ object", "under the final name after the kill", "after the second run")
    print_row(*["---"] * 4)
    for name in [OURS, CURL, *COLUMNS[1:]]:
        if name in tools:
            origin.served = Served(content, checksum, "kill", options.kill_speed * MIB)
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                output = pathlib.Path(folder) / KEY
                cells = kill_and_resume(tools[name], output, options.own_limit, origin.served, errors)
            tell(f"kill: {name}: {cells}")
            print_row(name, *cells)


def main():
    options = parse_options()
    errors = None if options.verbose else subprocess.DEVNULL
    with tempfile.TemporaryDirectory() as name, Origin() as origin:
        scratch = pathlib.Path(name)
        home = scratch / "home"
        home.mkdir()
        tools = find_tools(options, home, origin.url)
        for name in COLUMNS:
            if name not in tools:
                tell(f"{name} is not installed and left out")
        print_outcomes(options, origin, tools, scratch, errors)
        if "kill" in options.faults:
            print_kills(options, origin, tools, scratch, errors)


if __name__ == "__main__":
    main()
