#!/usr/bin/python3
"""Puts a machine to sleep soon outside office hours, and late within them.

A complete policy, as an example: samples are lines of JSON on standard input, answers are lines of
JSON on standard output; see docs/policies.md for the protocol. In dormoused.toml:

    [policy.office]
    program = "/usr/libexec/dormouse/policies/office.py"
    args = ["--days", "1-5", "--hours", "8-19", "--soon", "60", "--late", "1800"]

and in the file of each machine that it decides for:

    [sleep]
    policy = "external:office"

Only the standard library is used. Standard error goes to the daemon's log.
"""

import argparse
import json
import sys
import time


def span(text):
    """Both ends of "FROM-TO"."""
    first, last = text.split("-")
    return int(first), int(last)


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--days", type=span, default=(1, 5), help="from 1, Monday, to 7")
    parser.add_argument("--hours", type=span, default=(8, 19), help="the last one is not among them")
    parser.add_argument("--soon", type=float, default=60, help="seconds of idleness, outside of these")
    parser.add_argument("--late", type=float, default=1800, help="seconds of idleness, within these")
    return parser.parse_args()


def judge(sample, office):
    """The verdict on a sample, and why."""
    local = time.localtime(sample["now"])
    first_day, last_day = office.days
    opens, closes = office.hours
    is_office = first_day <= local.tm_wday + 1 <= last_day and opens <= local.tm_hour < closes
    enough = office.late if is_office else office.soon
    idle = sample["idle_for"]
    if idle is None:
        busy = [signal["name"] for signal in sample["signals"] if signal["busy"]]
        return "keep", "in use: " + ", ".join(busy)
    if idle < enough:
        return "keep", f"idle for {idle:.0f} s of {enough:.0f} s"
    return "sleep", f"idle for {idle:.0f} s"


def main():
    office = options()
    for line in sys.stdin:
        sample = json.loads(line)
        verdict, why = judge(sample, office)
        print(json.dumps({"id": sample["id"], "verdict": verdict, "why": why}), flush=True)


if __name__ == "__main__":
    main()
