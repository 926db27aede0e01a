"""A result in the server's own spelling: what was read to judge it must not change a digit of what goes on."""

import msgspec

from apps.common.jsontext import dumps
from apps.gateway.plane.call import Json
from apps.servers.transports.base import UpstreamAnswer


class _Response(msgspec.Struct):
    result: msgspec.Raw


_response = msgspec.json.Decoder(_Response).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_joined = msgspec.json.Encoder().encode


def result_text(answer: UpstreamAnswer, result: Json) -> bytes:
    """Return `result` as JSON on one line; every member that is the answer's own keeps the server's bytes.

    So numbers longer than 64 bits or 17 digits, the order of keys and escapes come through as they were sent.
    """
    original = answer.result
    if not answer.raw or original is None:
        return dumps(result)
    try:
        text = _response(answer.raw).result
        if result is not original:
            written = _members(text)
            text = msgspec.Raw(
                _joined(
                    {
                        key: written[key] if key in written and original.get(key) is value else msgspec.Raw(dumps(value))
                        for key, value in result.items()
                    }
                )
            )
    except msgspec.MsgspecError:
        return dumps(result)
    line = bytes(text)
    # within strings JSON has none, so that these are white space; an event stream would end a line at them
    if b"\n" in line or b"\r" in line:
        line = line.replace(b"\n", b" ").replace(b"\r", b" ")
    return line
