"""Servers that alerts are really sent to: a webhook and a mailbox, on loopback, in a thread each."""

import email
import email.message
import email.policy
import json
import socketserver
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TypeVar


class Webhook:
    """Answers with `answers` in turn, then 200, and keeps what it was sent."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.received: list[dict[str, str]] = []
        self.tried = 0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.tried += 1
                status = hook.answers.pop(0) if hook.answers else 200
                if status == 200:
                    hook.received.append(body)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://hook:s3cret-pass@127.0.0.1:{self.server.server_port}/services/T0KEN-IN-PATH?+Authorization=Bearer-abc"


class Mailbox:
    """An SMTP server that takes every message and keeps it."""

    def __init__(self) -> None:
        self.received: list[email.message.EmailMessage] = []
        box = self

        class Handler(socketserver.StreamRequestHandler):
            def say(self, line: str) -> None:
                self.wfile.write(f"{line}\r\n".encode())

            def handle(self) -> None:
                self.say("220 mailbox")
                for raw in self.rfile:
                    verb = raw.strip().upper()
                    if verb.startswith(b"DATA"):
                        self.say("354 go on")
                        lines = []
                        for line in self.rfile:
                            if line == b".\r\n":
                                break
                            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
                        box.received.append(
                            email.message_from_bytes(b"".join(lines), policy=email.policy.default)  # type: ignore[arg-type]
                        )
                    elif verb.startswith(b"QUIT"):
                        self.say("221 bye")
                        return
                    self.say("250 ok")

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        port = self.server.server_address[1]
        self.url = f"mailto://127.0.0.1:{port}?from=sosie@example.org&to=ops@example.org&mode=insecure&smtp=127.0.0.1"


Receiver = TypeVar("Receiver", Webhook, Mailbox)


@contextmanager
def serving(receiver: Receiver) -> Iterator[Receiver]:
    Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()


def webhook(*answers: int) -> AbstractContextManager[Webhook]:
    return serving(Webhook(*answers))
