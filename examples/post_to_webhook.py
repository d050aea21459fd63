"""Post every root cause to a webhook, signed, as a CloudEvent in structured mode.

Needs kafka-python and urllib3, and consume_root_causes.py beside it:

    pip install 'kafka-python[crc32c,lz4,zstd]' 'urllib3>=2.2,<3'
    export MENDSTREAM_WEBHOOK_SECRET=...
    python post_to_webhook.py --url https://example.com/hooks/incidents

The body is the event, byte for byte as it came from Kafka. The headers follow Standard Webhooks
(https://www.standardwebhooks.com), so a receiver can verify them with an existing library: ``webhook-id`` is the event
id, ``webhook-timestamp`` the seconds since 1970 at sending, and ``webhook-signature`` is ``v1,`` and the base64 of
HMAC-SHA256 over ``id.timestamp.body``. A receiver drops what is older than five minutes and ids that it has seen.

Server errors and lost connections are tried again with growing pauses. An event that the receiver refuses for good is
reported and passed over; anything else that fails ends the program without committing, so that nothing is lost.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import os
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import urllib3
from consume_root_causes import Event, add_kafka_arguments, follow, one_line, printable

SECRET_VARIABLE = "MENDSTREAM_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable, not a secret
RETRIED = (408, 425, 429, 500, 502, 503, 504)
REFUSED = (400, 413, 422)  # this very event is not wanted; another may be


class DeliveryError(RuntimeError):
    """The webhook cannot be used as configured; the text says why."""


def secret_bytes(secret: str) -> bytes:
    """The key in a secret: base64 after ``whsec_``, as Standard Webhooks writes it, else the text itself."""
    if secret.startswith("whsec_"):
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    return secret.encode()


def signature(key: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """The value of the ``webhook-signature`` header."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Webhook:
    """A URL that takes events; ``clock`` gives seconds since 1970."""

    def __init__(
        self, url: str, key: bytes, *, retries: int = 6, backoff_s: float = 0.5, clock: Callable[[], float] = time.time
    ) -> None:
        if urlsplit(url).scheme not in {"http", "https"}:
            raise DeliveryError(f"{url} is no http or https address")
        self._url = url
        self._key = key
        self._clock = clock
        # All pauses together stay below the five minutes for which a signature is valid.
        self._retry = urllib3.Retry(
            total=retries,
            redirect=0,
            status_forcelist=RETRIED,
            allowed_methods=["POST"],
            backoff_factor=backoff_s,
            backoff_max=30,
            backoff_jitter=backoff_s,
            retry_after_max=30,
            raise_on_redirect=False,
            raise_on_status=False,
        )
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=5, read=15))
        self.refused = 0

    def post(self, event: Event, body: bytes) -> bool:
        """Deliver one event; False where the receiver refuses it for good.

        Raises:
            DeliveryError: it was not taken, and a repetition later may help.
        """
        timestamp = int(self._clock())
        headers = {
            "content-type": "application/cloudevents+json; charset=UTF-8",
            "user-agent": "mendstream-example/1",
            "webhook-id": event["id"],
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._key, event["id"], timestamp, body),
        }
        try:
            answer = self._pool.request("POST", self._url, body=body, headers=headers, retries=self._retry)
        except urllib3.exceptions.HTTPError as error:
            raise DeliveryError(f"{event['id']} could not be delivered: {error}") from error
        if answer.status in REFUSED:
            self.refused += 1
            print(f"refused with {answer.status}: {printable(event['id'])}", file=sys.stderr)
            return False
        if not 200 <= answer.status < 300:
            raise DeliveryError(f"{event['id']} was answered with {answer.status}")
        return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Post root causes to a webhook.")
    add_kafka_arguments(parser, group="mendstream-example-webhook")
    parser.add_argument("--url", required=True, help="where to post")
    parser.add_argument("--retries", type=int, default=6, help="further tries of one event (%(default)s)")
    parser.add_argument("--backoff", type=float, default=0.5, help="first pause in seconds; doubles (%(default)s)")
    args = parser.parse_args()
    secret = os.environ.get(SECRET_VARIABLE)
    if not secret:
        parser.error(f"set {SECRET_VARIABLE} to the secret that the receiver knows")
    try:
        webhook = Webhook(args.url, secret_bytes(secret), retries=args.retries, backoff_s=args.backoff)

        def deliver(event: Event, body: bytes) -> None:
            if webhook.post(event, body):
                print(f"posted {one_line(event)}", flush=True)

        follower = follow(args, deliver)
    except (DeliveryError, ValueError) as error:
        print(f"stopped: {printable(error)}", file=sys.stderr)
        return 1
    print(f"{follower.handled - webhook.refused} posted, {webhook.refused} refused", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
