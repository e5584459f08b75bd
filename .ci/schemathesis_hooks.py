"""What schemathesis cannot know from the description of the API. See schemathesis.toml beside this file."""

import base64
import os
import urllib.error
import urllib.parse
import urllib.request

import schemathesis

NODE = os.environ["NODE"]
TOKEN = os.environ["TOKEN"]


def is_base64(text):
    try:
        base64.b64decode(text, validate=True)
        return True
    except ValueError:
        return False


@schemathesis.hook
def filter_case(context, case):
    """Leaves out what is neither right nor wrong by the description, since a schema cannot say how parts depend on each other."""
    body = case.body if isinstance(case.body, dict) else {}
    # A partition that is named twice is named alike.
    partitions = [(case.headers or {}).get("X-Partition-ID"), (case.query or {}).get("partition")]
    if len({str(partition) for partition in partitions if partition is not None}) > 1:
        return False
    # A time to live is said once at most: as a header, a parameter or a field.
    if ["X-TTL" in (case.headers or {}), "ttl" in (case.query or {}), "ttl" in body].count(True) > 1:
        return False
    operations = body["ops"] if isinstance(body.get("ops"), list) else []
    for fields in filter(lambda fields: isinstance(fields, dict), [body, *operations]):
        # What says base64 is base64.
        if fields.get("encoding") == "base64" and not is_base64(str(fields.get("value"))):
            return False
        # To a schema 1.0 is an integer; to the node it has digits only.
        if any(isinstance(fields.get(name), float) for name in ("id", "epoch")):
            return False
        # A value beside the key is read past; only what some clients send is promised, a string.
        is_read_past = case.operation.path in ("/get", "/delete") and "value" in fields
        if is_read_past and not isinstance(fields["value"], str):
            return False
    if case.operation.path not in ("/get", "/delete", "/set") or case.method == "OPTIONS":
        return True
    # The key is in the address or in the body. If it is in the address, a body is not read, or is a value of any kind.
    is_raw = case.media_type == "application/octet-stream"
    if "key" in (case.query or {}):
        return is_raw or case.method == "HEAD" or isinstance(body.get("key"), str) and 0 < len(body["key"]) <= 1000
    return case.method == "HEAD" or bool(body) and not is_raw


@schemathesis.hook
def before_call(context, case, kwargs):
    """Reads find something: most keys that are drawn exist nowhere else."""
    if case.operation.path not in ("/get", "/kv/{key}") or case.method not in ("GET", "HEAD", "POST"):
        return
    body = case.body if isinstance(case.body, dict) else {}
    key = (case.path_parameters or {}).get("key") or (case.query or {}).get("key") or body.get("key")
    if not isinstance(key, str) or not 0 < len(key) < 1000:
        return
    # In a path it is percent-encoded already.
    key = key if case.operation.path == "/kv/{key}" else urllib.parse.quote(key.encode("utf-8", "surrogatepass"), safe="")
    request = urllib.request.Request(f"{NODE}/kv/{key}?ttl=60", data=b"a value", method="PUT")
    request.add_header("Authorization", f"Bearer {TOKEN}")
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except (urllib.error.HTTPError, ValueError):
        pass  # a key that is none: what is tried is what the node says of it
