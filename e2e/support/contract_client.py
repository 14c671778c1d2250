"""A client of the image-builder and the snapshot registry, written from their contract alone.

Unlike the clients in TypeScript it packs with Python's tarfile, sends forms and reads event streams with requests.

    contract_client.py build FOLDER [NAME=VALUE ...] [--tar gnu|pax|ustar] [--cancel-at LINE]
    contract_client.py follow BUILD
    contract_client.py calls

DECANT_URL and DECANT_API_KEY say where. Prints one JSON document; `calls` reads lines of JSON,
[method, path, body, key], and prints one for each. `build` writes the id of the build and every line
that it sees to standard error, each with the connection that brought it.
"""

import io
import json
import os
import sys
import tarfile
import time

import requests

URL = os.environ["DECANT_URL"]
SESSION = requests.Session()
SESSION.headers["Authorization"] = "Bearer " + os.environ["DECANT_API_KEY"]
TIMEOUT = (10, 60)
# Statuses of a log after which it is asked for again, at most five times.
RETRIED = {404, 408, 429, 500, 502, 503, 504}


def archive(folder, form):
    """The folder as tarfile writes it: names with ./, owners and times as they are, hard links as such."""
    formats = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=formats[form]) as tar:
        tar.add(folder, arcname=".")
    return packed.getvalue()


def control(data):
    """The control event in a line, as the contract tells it from a line of output."""
    if not data.startswith("{") or ('"done"' not in data and '"error"' not in data):
        return None
    try:
        event = json.loads(data)
    except ValueError:
        return None
    return event if event.get("done") or event.get("error") else None


def attempt(build, number, on_line):
    """Reads the log once. Returns its lines and control events; a dropped connection ends it early."""
    lines, ends = [], []
    headers = {"Accept": "text/event-stream"}
    with SESSION.get(f"{URL}/builds/{build}/logs", headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code != 200:
            return response.status_code, lines, ends
        if not response.headers["Content-Type"].startswith("text/event-stream"):
            raise SystemExit(f"a log of type {response.headers['Content-Type']}")
        try:
            for line in response.iter_lines(chunk_size=1, decode_unicode=True):
                if not line.startswith("data:"):
                    continue
                data = line[5:].removeprefix(" ")
                event = control(data)
                if event is not None:
                    ends.append(event)
                    continue
                lines.append(data)
                on_line(number, data)
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError):
            pass
    return 200, lines, ends


def follow(build, on_line=lambda number, line: None):
    """Reads the log until its control event, from the start again after each drop, as there is no resuming."""
    refused = connections = 0
    while True:
        try:
            connections += 1
            status, lines, ends = attempt(build, connections, on_line)
        except requests.exceptions.ConnectionError:
            # A drop as any other one, before the answer had begun: only answers are counted.
            status, lines, ends = 0, [], []
        if ends:
            return {"lines": lines, "ends": ends, "connections": connections}
        if status not in (0, 200):
            refused += 1
            if status not in RETRIED or refused >= 5:
                raise SystemExit(f"the log answered {status}")
        time.sleep(0.05 if status == 200 else 0.25 if status == 0 else 1)


def state_of(build):
    """The state of a build, asked for three times as clients do when the connection is cut."""
    for last in (False, False, True):
        try:
            return SESSION.get(f"{URL}/builds/{build}", timeout=TIMEOUT).json()
        except requests.exceptions.ConnectionError:
            if last:
                raise
            time.sleep(0.5)


def build(folder, fields, form, cancel_at):
    parts = {"context": ("context.tar.gz", archive(folder, form), "application/gzip")}
    answer = SESSION.post(f"{URL}/builds", data=fields, files=parts, timeout=TIMEOUT)
    if not answer.ok:
        return {"status": answer.status_code, "body": answer.json()}
    build_id = answer.json()["build_id"]
    print(build_id, file=sys.stderr, flush=True)
    deleted = []

    def on_line(number, line):
        print(number, line, file=sys.stderr, flush=True)
        if line == cancel_at and not deleted:
            for _ in range(2):
                deleted.append(SESSION.delete(f"{URL}/builds/{build_id}", timeout=TIMEOUT).status_code)

    log = follow(build_id, on_line)
    return {"build_id": build_id, **log, "state": state_of(build_id), "deleted": deleted}


def call(method, path, body, key):
    headers = {"Authorization": "Bearer " + key}
    answer = SESSION.request(method, URL + path, json=body, headers=headers, timeout=TIMEOUT)
    return {"status": answer.status_code, "body": answer.json() if answer.content else None}


def main(arguments):
    options = {"--tar": "pax", "--cancel-at": None}
    for name in options:
        if name in arguments:
            at = arguments.index(name)
            options[name] = arguments[at + 1]
            del arguments[at : at + 2]
    command, *rest = arguments
    if command == "build":
        fields = dict(field.split("=", 1) for field in rest[1:])
        result = build(rest[0], fields, options["--tar"], options["--cancel-at"])
    elif command == "follow":
        result = follow(rest[0])
    else:
        for line in sys.stdin:
            print(json.dumps(call(*json.loads(line))), flush=True)
        return
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
