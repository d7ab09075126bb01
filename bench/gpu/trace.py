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
import re
import statistics
import sys

import torch
from torch.profiler import ProfilerActivity, profile


def run(library, folder):
    arguments = [b"decode_bench", folder.encode(), b"--trace"]
    argv = (ctypes.c_char_p * len(arguments))(*arguments)
    torch.cuda.init()
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        status = ctypes.CDLL(library).lorax_decode_bench(len(arguments), argv)
    if status != 0:
        raise SystemExit(status)
    events = []
    for event in trace.profiler.kineto_results.events():
        name = event.name()
        if event.device_type() == torch.autograd.DeviceType.CUDA and "Mem" not in name:
            events.append((event.start_ns(), event.start_ns() + event.duration_ns(), short(name)))
    return sorted(events)


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
        names = collections.Counter(name for _, _, name in step)
        if not any("export" in name for name in names):
            continue
        signature = tuple(sorted(names.items()))
        charged = collections.Counter()
        active = collections.Counter()
        end = step[0][0]
        for start, stop, name in step:
            charged[name] += max(0, stop - end) / 1e3
            active[name] += (stop - start) / 1e3
            end = max(end, stop)
        groups[signature].append((charged, active, (end - step[0][0]) / 1e3))
    with open(out, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "steps", "kernel", "count", "charged_us", "active_us"])
        for index, (signature, members) in enumerate(groups.items()):
            if len(members) < 4:
                continue
            total = statistics.median(member[2] for member in members)
            print(f"--- group {index}: {len(members)} steps of {total:.0f} us")
            counts = dict(signature)
            rows = []
            for name in counts:
                charged = statistics.median(member[0][name] for member in members)
                active = statistics.median(member[1][name] for member in members)
                rows.append((charged, active, name))
                writer.writerow([index, len(members), name, counts[name], charged, active])
            for charged, active, name in sorted(rows, reverse=True)[:14]:
                count = counts[name]
                print(f"{name:34} x{count:4}  charged {charged:8.1f} us ({charged / count:6.2f} each)"
                      f"  active {active / count:6.2f} each")


main()
