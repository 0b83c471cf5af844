#!/usr/bin/python3
"""Answers UDP echo (port 7, RFC 862) over IPv4 for a sleeping machine.

A complete responder, as an example: questions are lines of JSON on standard input, answers are
lines of JSON on standard output; see docs/responders.md for the protocol. In dormoused.toml:

    [responder.udp-echo]
    program = "/usr/libexec/dormouse/responders/udp-echo.py"

and in the file of each machine that it answers for:

    [[responder]]
    name = "udp-echo"
    frames = ["udp:7"]

Only the standard library is used. Standard error goes to the daemon's log.
"""

import json
import struct
import sys

IPV4 = 0x0800
VLAN_TAGS = (0x8100, 0x88A8)
UDP = 17
ECHO = 7


def checksum(octets):
    """The Internet checksum (RFC 1071)."""
    if len(octets) % 2:
        octets += b"\0"
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo(frame):
    """The frame that answers `frame`; None if it is no whole UDP datagram to the echo port.

    Frames come as a host captures them: there may be padding behind the packet, and the checksum of
    UDP may be missing if the sender is on the same host. Answers need whole checksums.
    """
    at = 12
    while len(frame) >= at + 2 and int.from_bytes(frame[at : at + 2], "big") in VLAN_TAGS:
        at += 4
    tags, ethertype, packet = frame[12:at], frame[at : at + 2], frame[at + 2 :]
    if int.from_bytes(ethertype, "big") != IPV4 or len(packet) < 28 or packet[0] != 0x45:
        return None  # not IPv4, or with options
    total, _, fragment, _, protocol = struct.unpack("!HHHBB", packet[2:10])
    if fragment & 0x3FFF or protocol != UDP or not 28 <= total <= len(packet):
        return None  # a fragment, not UDP, or cut short
    source, destination = packet[12:16], packet[16:20]
    source_port, destination_port, length = struct.unpack("!HHH", packet[20:26])
    if destination_port != ECHO or source_port == ECHO or not 8 <= length <= total - 20:
        return None  # two echo ports would answer each other for ever
    data = packet[28 : 20 + length]

    udp = struct.pack("!HHHH", ECHO, source_port, length, 0) + data
    pseudo = destination + source + struct.pack("!BBH", 0, UDP, length)
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp) or 0xFFFF) + data
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, UDP, 0) + destination + source
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    # Back to where it came from, with the same VLAN tags.
    return frame[6:12] + frame[0:6] + tags + ethertype + ip + udp


def main():
    for line in sys.stdin:
        question = json.loads(line)
        reply = echo(bytes.fromhex(question["frame"]))
        answer = {"id": question["id"], "verdict": "hold"}
        if reply is not None:
            answer.update(verdict="reply", frames=[reply.hex()])
        # One line, at once: the daemon waits for it.
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
