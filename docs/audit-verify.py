#!/usr/bin/env python3
"""Verifies an export of the audit trail, without Holdfast: holdfast audit export | docs/audit-verify.py

It recomputes each event's hash from its line, as docs/AUDIT.md says. Exit 0: every stream of the export is whole. Exit 1: a stream
is damaged, and the line DAMAGED names the stream, the sequence number and the fault. Exit 2: the export only ends too early, as after
a failed command, and the line CUT OFF says where. Compare the printed heads with those that you kept elsewhere. It needs only
Python 3.7 or newer.
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
# Free texts enter the hash by their own digest, so that they can be erased.
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
    """Returns an object, and refuses a repeated member: readers differ in the one that they take."""
    if len(dict(pairs)) != len(pairs):
        raise Damaged("a member is there twice")
    return dict(pairs)


class Stream:
    """A stream so far: its last event, and its first fault."""

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
            raise Damaged("its content does not match its hash")
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
            raise Damaged("the head is at event %s, or has another hash" % head["seq"])
        if at_head and self.at is not None and head["at"] != str(self.at):
            raise Damaged("the head has another time")


def missing(streams, expected, latest):
    """Returns whether the export was cut off before the announced streams that it lacks, and a message for each of them."""
    absent = [name for name in expected if name not in streams]
    was_cut = latest in expected and all(expected.index(name) > expected.index(latest) for name in absent)
    return was_cut, ["%s: the whole stream is missing" % name for name in absent]


def main():
    streams, expected, latest, damaged, cut = {}, [], None, [], []
    for number, text in enumerate(sys.stdin.buffer, 1):
        name = None
        try:
            line = json.loads(text.decode(), object_pairs_hook=once)
            name = line["stream"]
            if "before" in line and name in COLUMNS and name not in streams:
                streams[name] = Stream(line)
                expected = [known for known in line.get("streams", expected) if known in COLUMNS]
            elif streams[name].wrong is None:
                (streams[name].end if "head" in line else streams[name].event)(line)
            latest = name
        except (Damaged, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            if name is None and isinstance(error, ValueError) and not text.endswith(b"\n"):
                cut.append("line %d: the export ends in its middle" % number)
                break
            why = str(error) if isinstance(error, Damaged) else "line %d cannot be read: %r" % (number, error)
            if name in streams:
                streams[name].wrong = "%s %s: %s" % (name, line.get("seq", streams[name].seq), why)
                latest = name
            else:
                damaged.append("line %d: %s" % (number, why))
    for name, stream in sorted(streams.items()):
        if stream.wrong is not None:
            damaged.append(stream.wrong)
        elif stream.ended:
            print("%s %d %s" % (name, stream.seq, stream.hash))
        else:
            # Only the last stream can be cut off; an earlier one without its last line is damaged.
            (cut if name == latest else damaged).append(
                "%s %d: the export ends here, without its last line" % (name, stream.seq))
    was_cut, absent = missing(streams, expected, latest)
    (cut if was_cut else damaged).extend(absent)
    if not streams and not damaged and not cut:
        cut.append("nothing is there")
    for word, found in (("DAMAGED", damaged), ("CUT OFF", cut)):
        for line in found:
            print("%s %s" % (word, line))
    if damaged:
        print("THE TRAIL IS DAMAGED")
        return 1
    if cut:
        print("THE EXPORT IS CUT OFF: nothing that is there is wrong; export it again, and see why holdfast audit export failed")
        return 2
    others = [name for name in sorted(COLUMNS) if name not in streams]
    print("every stream of this export is whole; not in it: " + ", ".join(others) if others else "every stream is whole")
    return 0


if __name__ == "__main__":
    sys.exit(main())
