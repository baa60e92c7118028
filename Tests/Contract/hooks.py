"""What schemathesis is to know besides the contract."""

import re
import uuid

import schemathesis


@schemathesis.hook
def map_case(context, case):
    """A key is for one request: with the next it is refused, however valid both are."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[!-~]{1,255}", key):
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
    return case
