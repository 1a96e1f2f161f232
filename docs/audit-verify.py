#!/usr/bin/env python3
"""Verifies an export of the audit trail, without Holdfast: holdfast audit export | docs/audit-verify.py

Each event's hash is made anew from its line, as docs/AUDIT.md says. Exits 0 when every stream is whole, 1 when one is
damaged: the line DAMAGED names the stream, the sequence number, and what is wrong. The heads it prints are what to hold against
those that were kept elsewhere. Needs Python 3.7 or newer, and nothing else.
"""

import datetime
import hashlib
import json
import struct
import sys

COMMON = "seq at principal actor request_id correlation_id "
COLUMNS = {
    "control": COMMON + "action subject ok error reason detail",
    "heimdall": COMMON + "domain action ok confidence success recommendation_id gate_reason model_version reason "
    "recommendation evidence detail",
    "kpi": COMMON + "domain metric series_seq success value series_sum event_id detail",
    "risk": COMMON + "engine action ok amount denial scope reservation_id day exposure_delta open_delta loss_delta "
    "actions_delta reason metadata detail",
}
# Hashed by their own digest, so that they can be erased.
FREE = {"reason", "detail", "metadata", "recommendation", "evidence"}


class Damaged(Exception):
    pass


def field(text):
    if text is None:
        return b"\xff\xff\xff\xff"
    return struct.pack(">I", len(text.encode())) + text.encode()


def canonical(event):
    erased, found = event.get("erased", {}), [b"\x01", field(event["stream"])]
    for name in COLUMNS[event["stream"]].split():
        text = event[name]
        if name in FREE:
            text = erased.get(name) if text is None else hashlib.sha256(text.encode()).hexdigest()
        found.append(field(text))
    return b"".join(found)


def once(pairs):
    """An object whose members are there once: readers differ in which of two they take."""
    if len(dict(pairs)) != len(pairs):
        raise Damaged("a member is there twice")
    return dict(pairs)


class Stream:
    """What is known of a stream: the event before, and the first thing that is wrong."""

    def __init__(self, line):
        self.seq, self.hash = int(line["before"]["seq"]), line["before"]["hash"]
        self.at, self.ended, self.wrong = None, False, None
        if self.seq == 0 and self.hash != "00" * 32:
            raise Damaged("the beginning has a hash")

    def event(self, event):
        names = set(COLUMNS[event["stream"]].split()) | {"stream", "time", "hash"}
        if set(event) - {"erased"} != names or self.ended:
            raise Damaged("it has other columns than an event of its stream, or stands behind the last line")
        if event["seq"] != str(self.seq + 1):
            raise Damaged("event %d is expected here" % (self.seq + 1))
        before, self.seq = self.hash, self.seq + 1
        self.hash = event["hash"]
        if hashlib.sha256(bytes.fromhex(before) + canonical(event)).hexdigest() != self.hash:
            raise Damaged("what it says does not give its hash")
        at = int(event["at"])
        time = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=at)
        if time.isoformat(timespec="microseconds") + "Z" != event["time"]:
            raise Damaged("its time is not the one that is hashed")
        if self.at is not None and at <= self.at:
            raise Damaged("its time is not later than that of the event before")
        self.at = at

    def end(self, line):
        self.ended, head = True, line["head"]
        here = {"seq": str(self.seq), "hash": self.hash}
        if line["last"] != here:
            raise Damaged("the last line names another last event: event %s" % line["last"]["seq"])
        at_head = {"seq": head["seq"], "hash": head["hash"]} == here
        if not at_head and (line["to"] is None or int(head["seq"]) <= self.seq):
            raise Damaged("the head stands at event %s, or has another hash" % head["seq"])
        if at_head and self.at is not None and head["at"] != str(self.at):
            raise Damaged("the head has another time")


def main():
    streams, unreadable = {}, False
    for number, text in enumerate(sys.stdin.buffer, 1):
        name = None
        try:
            line = json.loads(text.decode(), object_pairs_hook=once)
            name = line["stream"]
            if "before" in line and name in COLUMNS and name not in streams:
                streams[name] = Stream(line)
            elif streams[name].wrong is None:
                (streams[name].end if "head" in line else streams[name].event)(line)
        except (Damaged, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            why = str(error) if isinstance(error, Damaged) else "line %d cannot be read: %r" % (number, error)
            if name in streams:
                streams[name].wrong = "%s %s: %s" % (name, line.get("seq", streams[name].seq), why)
            else:
                unreadable = True
                print("DAMAGED line %d: %s" % (number, why))
    for name, stream in sorted(streams.items()):
        if stream.wrong is None and not stream.ended:
            stream.wrong = "%s %d: the export ends here, without its last line" % (name, stream.seq)
        print("%s %d %s" % (name, stream.seq, stream.hash) if stream.wrong is None else "DAMAGED " + stream.wrong)
    whole = streams and not unreadable and all(stream.wrong is None for stream in streams.values())
    print("every stream is whole" if whole else "THE TRAIL IS DAMAGED")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
