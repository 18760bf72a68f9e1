"""What the environment says of the Hub: the client's settings, its address, the token; shown without what is secret."""

import os
import re
from typing import Any
from urllib.parse import urlsplit

from modelsgenesis.errors import AccessError, ConfigurationError
from modelsgenesis.files import reason_of

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
SIGN_IN = "sign in with `hf auth login`, set HF_TOKEN or pass --token"


def client_settings() -> Any:
    """Return the settings of the Hub's client, which reads them from the environment as it is imported.

    Raises:
        ConfigurationError: One of them cannot be; the client would end in a traceback.
    """
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        value = os.environ.get(name, "0").strip()
        if not re.fullmatch(r"[0-9]{1,5}", value):
            raise ConfigurationError(f"{name}: received {value!r}, expected whole seconds, such as 10; or unset it")
    try:
        from huggingface_hub import constants
    except Exception as problem:  # such as of an HF_ENDPOINT with an impossible host
        reason = redacted(reason_of(problem))
        raise ConfigurationError(f"HF_ENDPOINT or another HF_ setting: {reason}; correct or unset it") from problem
    return constants


def endpoint() -> str:
    """Return the address of the Hub in use, to be shown.

    Raises:
        ConfigurationError: `HF_ENDPOINT` is not an address.
    """
    address = client_settings().ENDPOINT
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port or an IPv6 address
        good = False
    if not good or re.search(r"[\s?#]", address):
        received = redacted(address)
        raise ConfigurationError(
            f"HF_ENDPOINT: received {received!r}, expected https:// and a host; correct or unset it"
        )
    return redacted(address)


def token_of(token: str | None) -> str:
    """Return the token that a request carries, a given one or the environment's; empty when there is none.

    Raises:
        AccessError: It holds what no header of a request can.
    """
    client_settings()
    from huggingface_hub import get_token

    try:
        sent = (token or get_token() or "").strip()
    except (OSError, ValueError) as error:  # of the file that keeps it
        raise AccessError(f"the stored token cannot be read: {reason_of(error)}; {SIGN_IN}") from error
    if not re.fullmatch(r"[!-~]*", sent):
        raise AccessError("the token holds blanks or characters outside of ASCII; copy it again where it was made")
    return sent


def redacted(text: str) -> str:
    """Return text without the passwords of addresses and without tokens; what the client says passes through here."""
    token = os.environ.get("HF_TOKEN", "").strip()
    text = text.replace(token, "***") if len(token) > 7 else text
    for name in ("HF_ENDPOINT", *PROXIES, *map(str.lower, PROXIES)):
        login = os.environ.get(name, "").rpartition("@")[0].partition("://")[2]
        text = text.replace(f"{login}@", "***@") if login else text
    return re.sub(r"\b(hf_|Bearer )\w+", r"\1***", re.sub(r"://[^/\s@]*@", "://***@", text))
