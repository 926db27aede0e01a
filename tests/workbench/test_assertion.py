"""Assertions: only ours, only for one audience, only for a minute."""

import base64
import json
import time

import pytest

from apps.common.crypto import assertion
from apps.common.crypto.assertion import AssertionRefused, Signer, Verifier

FACTS = {"tenant": "t1", "principal": "api_key:k1", "toolset": "system", "call_id": "c1", "audience": "system"}


def test_a_verifier_reads_what_was_signed():
    signer = Signer("secret")
    said = Verifier(signer.public_key, "system").verify(signer.sign(**FACTS))
    assert (said.tenant, said.principal, said.toolset, said.call_id, said.audience) == tuple(FACTS.values())
    assert 0 < said.expires - time.time() <= assertion.LIFETIME


def test_every_process_with_the_secret_signs_alike():
    assert Signer("secret").public_key == Signer("secret").public_key != Signer("other").public_key


def _forged(token):
    body, _, signature = token.partition(".")
    facts = json.loads(base64.urlsafe_b64decode(body + "=="))
    facts["t"] = "t2"
    return base64.urlsafe_b64encode(json.dumps(facts, separators=(",", ":")).encode()).decode().rstrip("=") + "." + signature


@pytest.mark.parametrize(
    "change",
    [
        _forged,
        lambda t: t[:-2],
        lambda t: t + ".x",
        lambda t: "",
        lambda t: None,
        lambda t: t * 100,
        lambda t: "é.é",
        lambda t: 5,
    ],
)
def test_altered_and_missing_ones_are_refused(change):
    signer = Signer("secret")
    with pytest.raises(AssertionRefused):
        Verifier(signer.public_key, "system").verify(change(signer.sign(**FACTS)))


def test_another_installation_audience_or_time_is_refused(monkeypatch):
    signer = Signer("secret")
    with pytest.raises(AssertionRefused, match="not made by"):
        Verifier(Signer("other").public_key, "system").verify(signer.sign(**FACTS))
    with pytest.raises(AssertionRefused, match="another server"):
        Verifier(signer.public_key, "other").verify(signer.sign(**FACTS))
    token = signer.sign(**FACTS)
    monkeypatch.setattr(assertion.time, "time", lambda: time.monotonic() + 1e10)
    with pytest.raises(AssertionRefused, match="expired"):
        Verifier(signer.public_key, "system").verify(token)
