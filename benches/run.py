#!/usr/bin/env python3
"""Measures what a script pays for calling cvm-export, beside the peers that are installed.

    cargo build --release
    python3 benches/run.py [--runs 20] [--build] [--peers FOLDER]

Needed are Python's standard library and, for memory, GNU time. Peers are `tccli`, `coscmd` and `curl`, looked up on PATH
and in --peers (such as the bin folder of a virtual environment); one that is not there is left out. Commands are run in
turn (A B C, A B C, …) after one warm-up round, each with an empty home folder; shown are medians with
the smallest and the largest value. Memory is the largest resident set of three more runs. The
exports run against `cvm-export simulate` on loopback, where an export takes no time.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def measure(command, environment):
    """Runs a command; returns milliseconds and its output."""
    begin = time.perf_counter()
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    milliseconds = (time.perf_counter() - begin) * 1000
    if done.returncode != 0:
        sys.exit(f"{command} ended with {done.returncode}")
    return milliseconds, done.stdout


def memory(command, environment):
    """Runs a command once more; returns its peak in MiB, or nothing where GNU time is not installed.

    A process is charged for the image that forked it, too; GNU time is small, this program is not.
    """
    gnu_time = shutil.which("time")
    if gnu_time is None:
        return []
    with tempfile.NamedTemporaryFile("r") as report:
        measure([gnu_time, "--format", "%M", "--output", report.name, *command], environment)
        return [int(report.read()) / 1024]


def rounds(commands, runs, environment):
    """Runs the commands in turn; returns name -> (milliseconds, MiB) lists."""
    seen = {name: ([], []) for name in commands}
    for number in range(runs + 1):
        for name, command in commands.items():
            words = command(number) if callable(command) else command
            milliseconds, _ = measure(words, environment)
            if number > 0:
                seen[name][0].append(milliseconds)
    for name, command in commands.items():
        for number in range(runs + 1, runs + 4):
            words = command(number) if callable(command) else command
            seen[name][1].extend(memory(words, environment))
    return seen


def spread(values, digits=1):
    if not values:
        return "not measured"
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def find_peers(folder):
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PATH", "")]))
    wanted = {"tccli": "--version", "coscmd": "--version", "curl": "--version"}
    found = {name: shutil.which(name, path=path) for name in wanted}
    return {f"{name} {wanted[name]}": [place, wanted[name]] for name, place in found.items() if place}


class Cloud:
    """A simulated cloud that ends with the block."""

    def __init__(self, binary, environment, *arguments):
        command = [binary, "simulate", "--output", "json", "--speed", "1000000000", *arguments]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        text = ""
        while not text.rstrip().endswith("}"):
            text += self.process.stdout.readline()
        self.environment = environment | json.loads(text)

    def calls(self):
        import urllib.request

        url = self.environment["CVM_EXPORT_ENDPOINT_URL"] + "/_simulator/calls"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url) as answer:
            return json.load(answer)["calls"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--build", action="store_true", help="also time a clean release build")
    parser.add_argument("--peers", help="a folder with the peers' commands")
    parser.add_argument("--binary", default=str(ROOT / "target/release/cvm-export"))
    options = parser.parse_args()
    if not os.access(options.binary, os.X_OK):
        sys.exit(f"{options.binary} is missing; run `cargo build --release` first")

    rows = []
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": os.environ.get("PATH", "")}
        ours = options.binary
        start_up = {"cvm-export --version": [ours, "--version"]} | find_peers(options.peers)
        for name, (times, memory) in rounds(start_up, options.runs, environment).items():
            rows.append((f"`{name}`", spread(times), spread(memory), ""))

        with Cloud(ours, environment) as cloud:
            def export(number):
                return [ours, "image", "--id", "img-linux001", "--bucket", "exports", "--prefix", f"p{number}", "-q"]

            before = len(cloud.calls())
            measure(export("calls"), cloud.environment)
            calls = len(cloud.calls()) - before
            seen = rounds({"export": export}, options.runs, cloud.environment)["export"]
            rows.append(("a whole simulated export of no length", spread(seen[0]), spread(seen[1]), f"{calls} calls"))

        disk = pathlib.Path(home) / "disk.raw"
        disk.write_bytes(bytes(1 << 20))
        many = [f"--image=img-many{number:04}={disk}" for number in range(1000)]
        with Cloud(ours, environment, *many) as cloud:
            listing = [ours, "images", "--region", "ap-guangzhou", "--output", "json"]
            _, output = measure(listing, cloud.environment)
            calls = len(cloud.calls())
            checked = len(json.loads(output)["items"])
            assert checked >= 1000, checked
            seen = rounds({"images": listing}, options.runs, cloud.environment)["images"]
            rows.append((f"checks of {checked} images of one account", spread(seen[0]), spread(seen[1]), f"{calls} calls"))

    size = os.path.getsize(options.binary)
    rows.append(("release binary", "", "", f"{size / 1e6:.1f} MB"))
    tree = ["cargo", "tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]
    lines = subprocess.run(tree, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    crates = {line.removesuffix(" (*)").strip() for line in lines if line.strip()}
    rows.append(("crates in the default release build", "", "", str(len(crates))))
    if options.build:
        with tempfile.TemporaryDirectory() as target:
            begin = time.perf_counter()
            subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", target], cwd=ROOT, check=True)
            rows.append(("clean release build", "", "", f"{time.perf_counter() - begin:.0f} s on {os.cpu_count()} cores"))

    print("| what | ms | peak MiB | |\n| --- | --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
