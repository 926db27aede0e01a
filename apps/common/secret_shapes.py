"""How secrets are recognised: by the names of what holds them, and by their own shapes. No Django."""

import re
from collections.abc import Iterator

MARK = "[redacted]"
_NAMES = (
    "password", "passwd", "passphrase", "passcode", "secret", "token", "authorization", "authorisation", "apikey", "cookie",
    "credential", "privatekey", "accesskey", "signingkey", "encryptionkey", "masterkey", "sharedkey", "sshkey", "authkey",
    "accountkey", "storagekey", "clientkey", "sessionkey", "sessionid", "bearer", "connectionstring", "signature", "assertion",
    "private",
)  # fmt: skip
"""A key whose letters and digits contain one of these holds a secret."""
_EXACT = frozenset(
    ("auth", "xauth", "pwd", "pass", "pin", "otp", "cvv", "cvc", "ssn", "sig", "jwt", "dsn", "pat", "sid", "totp")
)
"""A key that is one of these holds a secret."""
COUNT = re.compile(r"tokens|token(?:count|limit|budget|usage)|maxtoken", re.IGNORECASE)
"""Such a key counts tokens: a number under it is kept."""
_NOT_WORD = re.compile(r"[^a-z0-9]+")

_SHAPES = re.compile(
    "|".join(
        (
            r"\bsy_[A-Za-z0-9]{4,}(?:_[\w\-]*)?",  # our own keys
            r"\b(?i:bearer|basic|digest|negotiate|apikey)\s+[A-Za-z0-9+/=._~\-:]{6,}",  # values of Authorization
            r"\beyJ[\w\-]{6,}(?:\.[\w\-]*){0,4}",  # JSON web tokens (RFC 7519)
            r"\b(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ABIA|ACCA)[A-Z0-9]{8,}",  # AWS
            r"\b(?:gh[pousr]|github_pat|glpat|gldt|glrt|npm|pypi|hf|dop_v1|shp[a-z]{2}|lin_api|figd|rk|whsec|xapp)[_\-][\w\-]{10,}",
            r"\bxox[a-z](?:[.\-][A-Za-z0-9\-]+)+",  # Slack
            r"\b[srp]k[_\-](?:live|test|proj|ant|or|svcacct|admin)[_\-][\w\-]{6,}",  # Stripe, OpenAI, Anthropic
            r"\bsk-[\w\-]{16,}",
            r"\bAIza[\w\-]{20,}",  # Google
            r"\bya29\.[\w\-]{10,}",
            r"\bSG\.[\w\-]{10,}(?:\.[\w\-]*)?",  # SendGrid
            r"-----BEGIN[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?s:.)*?(?:-----END[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
        )
    )
)
_USERINFO = re.compile(r"(://)[^\s/?#\"'<>]*@")
"""The user and password of an address (RFC 3986, section 3.2.1)."""
_PAIR = re.compile(
    r"""(?ix)
    (?P<name>(?:pass(?:word|wd|phrase|code)|secret|token|authori[sz]ation|api[_\-.\ ]?key|cookie|credential|signature|assertion
      |(?:private|access|signing|encryption|master|shared|ssh|auth|account|storage|client|session)[_\-.\ ]?key
      |session[_\-]?id|connection[_\-]?string|\b(?:auth|pwd|pass|pin|otp|cvv|cvc|ssn|sig|jwt|dsn|pat|sid)\b)[\w\-.\[\]]{0,32})
    (?P<between>\\*["']?\s*(?:=>|:=|[:=])(?:\s|\\+[nrt])*)
    (?:\\*"(?:[^"\\]|\\.)*(?:"|\\?\Z)|'(?:[^'\\]|\\.)*(?:'|\\?\Z)|[\[{](?s:.)*
      |(?:(?:bearer|basic|digest|negotiate)\s+)?[^\s,;&"'<>}\]]+)
    """
)
"""`name=value`, `name: value` and `"name": value` in running text; a line's end between them may be an escaped one."""
_ELEMENT = re.compile(r"<(?P<name>[A-Za-z_][\w:.\-]{0,63})(?:\s[^<>]{0,256})?>(?P<value><!\[CDATA\[(?s:.)*?(?:\]\]>|\Z)|[^<]+)")
"""An XML element with a text in it."""
_LABELLED = re.compile(r'"(?:name|key)\\*"\s*:\s*\\*"(?P<name>[^"\\]{1,64})\\*"', re.IGNORECASE)
_VALUE = re.compile(r'"value\\*"\s*:\s*', re.IGNORECASE)
"""The parts of `{"name": …, "value": …}` in running text."""
_PAIRED = re.compile(r'(?:\[\s*\\*"(?P<first>[^"\\= ]{1,64})|"(?P<option>-[^"\\= ]{1,63}))\\*"\s*,\s*')
"""The beginning of `["X-Api-Key", …]` and of `"--password", …` in running text."""
_QUOTED = re.compile(r'(?P<mark>\\*)"')
_PLAIN = re.compile(r"[\[{](?s:.)*|[^\s,}\]]*")
_NEAR = 4096
"""Characters between a label and its value."""
SUSPECT = re.compile(
    r'[=@:]|<[A-Za-z_]|",|'
    r"sy_|eyJ|A[KSGIRNBC][A-Z]A|gh[pousr]_|github_pat|gl[a-z]{2,3}-|npm_|pypi-|hf_|dop_v1|shp|lin_api|figd|rk_|"
    r"whsec|xapp|xox|[srp]k[_\-]|AIza|ya29|SG\.|-----BEGIN|(?i:bearer|basic|digest|negotiate|apikey)\s"
)
"""What every secret in a text has somewhere; a short text without it needs no closer look."""
_STARTS = (
    "sy_", "eyJ", "AKIA", "ASIA", "AGPA", "AIDA", "AROA", "ANPA", "ABIA", "ACCA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat",
    "glpat", "gldt", "glrt", "npm_", "pypi", "hf_", "dop_v1", "shp", "lin_api", "figd", "rk_", "rk-", "whsec", "xapp", "xox", "sk_", "sk-",
    "pk_", "pk-", "AIza", "ya29", "SG.", "-----BEGIN",
)  # fmt: skip
_SCHEMES = ("bearer", "basic", "digest", "negotiate", "apikey")
_KEYWORDS = (
    "pass", "secret", "token", "auth", "key", "cookie", "credential", "sign", "assertion", "session", "connection", "pwd", "pin", "otp",
    "cv", "ssn", "sig", "jwt", "dsn", "pat", "sid",
)  # fmt: skip
"""The same in plain words, one of which every match of `_SHAPES` or `_PAIR` contains: looking for words is much faster."""
_LABELS = (*_KEYWORDS, "private", "bearer")
_WORDS = frozenset((*_KEYWORDS, *_SCHEMES, "private", *(word.lower() for word in _STARTS)))
_SHORTEST_WORDS = sorted(word for word in _WORDS if not any(other != word and other in word for other in _WORDS))
"""The words that contain no other."""
_JOINED_WORDS = tuple(word for word in _SHORTEST_WORDS if "_" in word)
_PLAIN_WORDS = tuple(word for word in _SHORTEST_WORDS if "_" not in word)
_LONG = 48
"""Characters from which on the words are faster than `SUSPECT`."""
SHORTEST = 7
"""Characters below which a text of its own has no recognisable secret (`otp=123`)."""

known_names: dict[str, bool] = {}


def is_secret_name(name: str) -> bool:
    """Tell whether a key of this name holds a secret, however it is written (`apiKey`, `X-Api-Key`, `api_key`)."""
    known = known_names.get(name)
    if known is None:
        word = _NOT_WORD.sub("", name[:256].lower())
        known = word in _EXACT or any(part in word for part in _NAMES)
        if len(known_names) >= 4096:
            known_names.clear()
        if len(name) <= 64:
            known_names[name] = known
    return known


def redact_text(text: str) -> str:
    """Return a text without the secrets that stand in it, of any length; see `redact` for one that may be long."""
    size = len(text)
    if size < SHORTEST or (size < _LONG and SUSPECT.search(text) is None):
        return text
    if "://" in text and "@" in text:
        text = _USERINFO.sub(rf"\1{MARK}@", text)
    lowered = text.lower()
    marked = "=" in text or ":" in text
    quoted, tagged = '"' in text and "," in text, "<" in text and ">" in text
    if (marked or quoted or tagged) and _has(lowered, _LABELS):
        if quoted:
            text = _without(text, _paired(text))
            if marked:
                text = _without(text, _labelled(text))
        if tagged:
            text = _ELEMENT.sub(_element, text)
        if marked:
            text = _PAIR.sub(rf"\g<name>\g<between>{MARK}", text)
    if _has(text, _STARTS) or _has(lowered, _SCHEMES):
        text = _SHAPES.sub(MARK, text)
    return text


def _element(found: re.Match[str]) -> str:
    name, value = found["name"], found["value"]
    if not is_secret_name(name) or not value.strip() or (COUNT.search(name) and value.strip().isdigit()):
        return found[0]
    return found[0][: -len(value)] + MARK


def _labelled(text: str) -> Iterator[tuple[int, int]]:
    """Give where values stand whose name stands beside them in an object: `{"name": "password", "value": …}`, either way round."""
    done = 0
    for label in _LABELLED.finditer(text):
        if not is_secret_name(label["name"]):
            continue
        begin = max(text.rfind("{", max(0, label.start() - _NEAR), label.start()), done)
        end = text.find("}", label.end(), label.end() + _NEAR)
        value = _VALUE.search(text, begin, end if end >= 0 else label.end() + _NEAR)
        if value is not None:
            done = _value_end(text, value.end())
            yield value.end(), done


def _paired(text: str) -> Iterator[tuple[int, int]]:
    """Give where values stand that follow their name in a list of two, or an option of a command."""
    done = 0
    for pair in _PAIRED.finditer(text):
        if pair.start() < done or not is_secret_name(pair["first"] or pair["option"]):
            continue
        end = _value_end(text, pair.end())
        if (pair["option"] or pair["first"]).startswith("-") or text[end : end + 16].lstrip()[:1] in ("]", ""):
            done = end
            yield pair.end(), end


def _value_end(text: str, begin: int) -> int:
    """Return where the JSON value that begins here ends; its quotes may be escaped, as those of JSON within JSON are."""
    opened = _QUOTED.match(text, begin)
    if opened is None:
        plain = _PLAIN.match(text, begin)
        return plain.end() if plain is not None else begin
    mark, at = opened[0], opened.end()
    while True:
        at = text.find(mark, at)
        if at < 0:
            return len(text)
        before = at
        while before > opened.end() and text[before - 1] == "\\":
            before -= 1
        if (at - before) % 2 == 0 if len(mark) == 1 else at == before:
            return at + len(mark)
        at += len(mark)


def _without(text: str, places: Iterator[tuple[int, int]]) -> str:
    """Return a text with marks where places of it stood that follow each other."""
    parts, done = [], 0
    for begin, end in places:
        if begin >= done:
            parts += [text[done:begin], MARK]
            done = end
    return "".join((*parts, text[done:])) if parts else text


def may_hold_secret(text: str) -> bool:
    """Tell whether a piece of JSON text holds a word that every secret, by its name or its shape, has; quick, and often wrongly yes."""
    if ("://" in text and "@" in text) or "\\u" in text:
        return True
    lowered = text.lower()
    return _has(lowered, _PLAIN_WORDS) or ("_" in lowered and _has(lowered, _JOINED_WORDS))


def _has(text: str, words: tuple[str, ...]) -> bool:
    for word in words:  # noqa: SIM110 - a generator costs twice as much
        if word in text:
            return True
    return False
