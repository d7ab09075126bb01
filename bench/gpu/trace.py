#!/usr/bin/env python3
"""Where the time of a decode step goes, kernel by kernel.

    trace.py libdecode_trace.so FOLDER OUT.csv

Runs decode_bench --trace under torch's profiler (CUPTI) and attributes each step's time: a kernel is
charged with what it adds to the end of all work before it, so that what overlaps is counted once and
the shares add up to the step. Steps are told apart by their number of rows and by their adapters.
"""

import collections
import csv
import ctypes
import json
import re
import statistics
import sys
import tempfile

import torch
from torch.profiler import ProfilerActivity, profile


def run(library, folder):
    """Kernels as (start us, end us, name, blocks), by start."""
    arguments = [b"decode_bench", folder.encode(), b"--trace"]
    argv = (ctypes.c_char_p * len(arguments))(*arguments)
    torch.cuda.init()
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        status = ctypes.CDLL(library).lorax_decode_bench(len(arguments), argv)
    if status != 0:
        raise SystemExit(status)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        trace.export_chrome_trace(file.name)
        events = json.load(open(file.name))["traceEvents"]
    return sorted(
        (event["ts"], event["ts"] + event["dur"], short(event["name"]), event["args"]["grid"][0])
        for event in events
        if event.get("cat") == "kernel"
    )


def short(name):
    found = re.search(r"(\w+?)(_kernel)?(<|\()", name.replace("void ", ""))
    return found.group(1) if found else name


def steps(events):
    """Kernels from one embed to the next."""
    step = []
    for event in events:
        if event[2].startswith("embed") and step:
            yield step
            step = []
        step.append(event)


def main():
    library, folder, out = sys.argv[1:4]
    groups = collections.defaultdict(list)
    for step in steps(run(library, folder)):
        counts = collections.Counter(name for _, _, name, _ in step)
        if not any("export" in name for name in counts):
            continue
        charged = collections.Counter()
        active = collections.Counter()
        end = step[0][0]
        for start, stop, name, _ in step:
            charged[name] += max(0, stop - end)
            active[name] += stop - start
            end = max(end, stop)
        rows = step[0][3]
        groups[rows, tuple(sorted(counts.items()))].append((charged, active, end - step[0][0]))
    with open(out, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rows", "adapters", "steps", "kernel", "count", "charged_us", "active_us"])
        for (rows, signature), members in groups.items():
            if len(members) < 4:
                continue
            # Scenarios of one shape differ in their adapters: the fastest half stands for few.
            members = sorted(members, key=lambda member: member[2])[: max(4, len(members) // 2)]
            counts = dict(signature)
            adapters = any("lora" in name for name in counts)
            total = statistics.median(member[2] for member in members)
            print(f"--- {rows} rows, {'adapters' if adapters else 'base'}: {len(members)} steps of {total:.0f} us")
            lines = []
            for name in counts:
                charged = statistics.median(member[0][name] for member in members)
                active = statistics.median(member[1][name] for member in members)
                lines.append((charged, active, name))
                writer.writerow([rows, adapters, len(members), name, counts[name], charged, active])
            for charged, active, name in sorted(lines, reverse=True)[:9]:
                count = counts[name]
                print(
                    f"{name:34} x{count:4}  charged {charged:8.1f} us ({charged / count:6.2f} each)"
                    f"  active {active / count:6.2f} each"
                )


main()
