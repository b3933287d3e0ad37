"""Requests: every byte that says what we want, and nothing that shows a secret."""

from __future__ import annotations

import traceback
from importlib import metadata
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bulkjobs
from bulkjobs.endpoints import ENDPOINTS
from bulkjobs.errors import ConfigError
from bulkjobs.model import JobId, RequestKind
from bulkjobs.wire.request import login_request, secrets_of, status_request, submit_request

CONTACTS = ENDPOINTS["contacts"]
TOKEN = "CANARY+part/one==.part+two=="
BASE = "https://api.example.com/api/v1"


def submit(**changes):
    options = {"base_url": BASE, "body": b"1\n2", "token": TOKEN, "accept": "json", "webhook": None}
    return submit_request(CONTACTS, **(options | changes))


def test_a_submission_is_a_post_of_the_body_to_the_endpoints_path():
    request = submit()
    assert (request.kind, request.method) == (RequestKind.SUBMIT, "POST")
    assert request.url == "https://api.example.com/api/v1/contact/job"
    assert request.body == b"1\n2"


def test_a_submission_says_everything_itself():
    """The token stands raw, `Accept` is always there, and `Content-Type` has no charset."""
    headers = dict(submit().headers)
    agent = headers.pop("User-Agent")
    assert headers == {
        "accessToken": TOKEN,
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "text/plain",
    }
    assert agent.startswith("bulkjobs/")


def test_the_user_agent_has_the_version_that_is_installed():
    try:
        version = metadata.version("bulkjobs")
    except metadata.PackageNotFoundError:
        version = bulkjobs.__version__  # a checkout that was never installed
    assert dict(submit().headers)["User-Agent"] == f"bulkjobs/{version}"


@pytest.mark.parametrize(("accept", "media_type"), [("json", "application/json"), ("xml", "application/xml")])
def test_the_answer_format_is_asked_for(accept, media_type):
    assert dict(submit(accept=accept).headers)["Accept"] == media_type
    status = status_request(CONTACTS, base_url=BASE, job_id=JobId("a"), token=TOKEN, accept=accept)
    assert dict(status.headers)["Accept"] == media_type


def test_a_final_slash_of_the_base_url_does_not_count():
    assert submit(base_url=BASE + "/").url == submit().url


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80))
def test_a_webhook_survives_the_query_whatever_it_holds(webhook):
    """It is an address within an address: `&`, `#`, `+` and `%` must not end or change it."""
    url = submit(webhook=webhook).url
    assert url.isascii()
    assert parse_qs(urlsplit(url).query, keep_blank_values=True, strict_parsing=True) == {
        "webhook": [webhook]
    }
    assert urlsplit(url).fragment == ""


def test_a_status_request_asks_below_the_submission_path():
    request = status_request(
        CONTACTS, base_url=BASE, job_id=JobId("v9qh2to86kg85s03trag"), token=TOKEN, accept="json"
    )
    assert (request.kind, request.method, request.body) == (RequestKind.STATUS, "GET", b"")
    assert request.url == "https://api.example.com/api/v1/contact/job/v9qh2to86kg85s03trag"
    assert dict(request.headers)["accessToken"] == TOKEN


def test_a_job_id_cannot_leave_its_place_in_the_path():
    """Job ids are checked when they are read; this is the second lock."""
    request = status_request(CONTACTS, base_url=BASE, job_id=JobId("../a?b#c"), token=TOKEN, accept="json")
    assert request.url == BASE + "/contact/job/..%2Fa%3Fb%23c"


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_a_login_carries_its_parameters_in_the_query(client_id, client_secret):
    """The body is empty; nothing of the parameters is lost in the encoding."""
    request = login_request(
        login_url="https://login.example.com/token.json", client_id=client_id, client_secret=client_secret
    )
    assert (request.kind, request.method, request.body) == (RequestKind.LOGIN, "POST", b"")
    assert parse_qs(urlsplit(request.url).query, keep_blank_values=True) == {
        "clientId": [client_id],
        "clientSecret": [client_secret],
        "grantType": ["cred"],
    }


@pytest.mark.parametrize(
    "token", ["", "CANARY\n", "CANARY\r\nHost: evil", "CAN ARY", "CANARYé", "CANARY\x00"]
)
def test_a_token_that_cannot_stand_in_a_header_is_a_configuration_error(token):
    """It is found before anything is sent, and the message does not show it."""
    with pytest.raises(ConfigError) as caught:
        submit(token=token)
    assert "access token" in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert "CAN" not in "".join(traceback.format_exception_only(caught.value))


def test_a_request_shows_neither_token_nor_address_in_its_repr():
    assert "CANARY" not in repr(submit(webhook="https://me.example/CANARY"))


def test_the_secrets_of_a_request_are_its_token_its_webhook_and_its_client_secret():
    """As they are; whoever masks them knows the forms in which they may be quoted."""
    hook = "https://me.example/hook?x=1"
    assert set(secrets_of(submit(webhook=hook))) == {TOKEN, hook}
    login = login_request(login_url="https://login.example.com/t", client_id="me", client_secret="s+/ß")
    assert secrets_of(login) == ("s+/ß",)
    assert secrets_of(submit()) == (TOKEN,)


def test_long_parts_of_a_webhooks_query_and_a_long_client_id_are_secrets_of_their_own():
    """A server may show the parameters of an address one by one; short ones are words that answers have."""
    hook = "https://me.example/hook?key=CANARY-p4ssw0rd%2F&x=1"
    assert set(secrets_of(submit(webhook=hook))) == {TOKEN, hook, "CANARY-p4ssw0rd/"}
    login = login_request(
        login_url="https://login.example.com/t", client_id="me-and-my-key", client_secret="s"
    )
    assert secrets_of(login) == ("me-and-my-key", "s")


def test_a_secret_within_another_comes_after_it():
    """Masking the shorter one first would leave the rest of the longer one to be read."""
    found = secrets_of(submit(webhook="https://me.example/a b"))
    assert list(found) == sorted(found, key=len, reverse=True)
