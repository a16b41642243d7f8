"""amqps:// against a real server: a private authority, and servers that are not who they should be."""

from __future__ import annotations

import json
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import leveret as library
import pytest
import trustme
from support.effects import Effects
from support.processes import PATIENCE, Broker, leveret, until
from support.rabbitmq_node import RabbitNode, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class SecureNode:
    """A node with a TLS port, whose certificate can be changed while it runs."""

    def __init__(self, folder: Path, *config: str) -> None:
        """Make it; it starts with the block."""
        self.port = free_port()
        self.authority = trustme.CA()
        self.authority_file = folder / "authority.pem"
        self.authority.cert_pem.write_to_path(self.authority_file)
        self._certificate, self._key = folder / "certificate.pem", folder / "key.pem"
        self.present(self.authority.issue_cert("localhost", "127.0.0.1"))
        lines = [
            f"listeners.ssl.1 = 127.0.0.1:{self.port}",
            f"ssl_options.certfile = {self._certificate}",
            f"ssl_options.keyfile = {self._key}",
            "ssl_options.verify = verify_none",
            *config,
        ]
        self.node = RabbitNode("\n".join(lines))

    def present(self, certificate: trustme.LeafCert) -> None:
        """Write what the server shows from its next start, or `reload`, on."""
        certificate.cert_chain_pems[0].write_to_path(self._certificate)
        certificate.private_key_pem.write_to_path(self._key)

    def present_self_signed(self) -> None:
        """Write a certificate that is signed by itself."""
        words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        more = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", self._key, "-out", self._certificate]
        subprocess.run([*words.split(), *more], check=True, capture_output=True)

    def reload(self) -> None:
        """Let the running server read its certificate again."""
        self.node.ctl("eval", "ssl:clear_pem_cache().")

    @property
    def url(self) -> str:
        """The TLS port's url."""
        return f"amqps://guest:guest@127.0.0.1:{self.port}/"

    def wait(self) -> None:
        """Wait until the TLS port, which opens after the plain one, listens."""

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        until(listens, "the TLS port listens")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureNode]:
    """A node for the module; a test that changes its certificate changes it back."""
    made = SecureNode(tmp_path_factory.mktemp("secure"))
    with made.node:
        made.wait()
        yield made


def refused(url: str, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what a producer, a worker and the doctor say of a server that none of them talks to."""
    with pytest.raises(library.BrokerUnavailable) as caught, library.App(url) as app:
        Effects(app, "tls", ignore_result=True).effect.send("/nowhere", 1)
    words = ["--url", url, "--queue", "tls", "--threads", "1", "--pool", "threads"]
    worker = leveret("worker", plugin, *words, expect=1).stderr
    assert worker.count("\n") == 1, worker
    checks = json.loads(leveret("doctor", "--url", url, "--json", expect=1).stdout)["checks"]
    doctor = [check["detail"] for check in checks if check["status"] == "failed"]
    assert len(doctor) == 1, doctor
    said = [str(caught.value), worker, *doctor]
    for text in said:
        assert "cannot connect to RabbitMQ at amqps://127.0.0.1:" in text
    # Not for want of anything else: without the check it is one like any other.
    monkeypatch.delenv("SSL_CERT_FILE")
    return said


def test_a_server_of_the_private_authority_takes_and_gives_jobs(
    secure: SecureNode, tmp_path: Path, effects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secure.authority_file))
    broker = Broker(secure.url, "tls-good", tmp_path)
    with library.App(secure.url) as app:
        task = Effects(app, broker.queue).effect
        jobs = task.send_many((str(broker.effects_file), n) for n in range(1_000))
        with broker.worker(effects) as worker:
            assert sorted(jobs.results(timeout=PATIENCE)) == list(range(1_000))
            worker.stop()
    assert leveret("doctor", "--url", secure.url).returncode == 0


def test_a_server_of_an_unknown_authority_is_refused(
    secure: SecureNode, effects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    for text in refused(secure.url, effects, monkeypatch):
        assert "the server's certificate is not accepted: unable to get local issuer certificate" in text
        assert "(SSL_CERT_FILE names another authority)" in text


@pytest.mark.parametrize("fault", ["wrong host", "expired", "self-signed"])
def test_a_server_with_a_wrong_certificate_is_refused(
    secure: SecureNode, effects: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    now = datetime.now(UTC)
    if fault == "wrong host":
        secure.present(secure.authority.issue_cert("elsewhere.example", "127.0.0.2"))
        why = "IP address mismatch (it is for others than 127.0.0.1: "
    elif fault == "expired":
        names = ["localhost", "127.0.0.1"]
        times = {"not_before": now - timedelta(days=9), "not_after": now - timedelta(days=1)}
        secure.present(secure.authority.issue_cert(*names, **times))
        why = "certificate has expired (renew it)"
    else:
        secure.present_self_signed()
        why = "self-signed certificate (SSL_CERT_FILE"
    secure.reload()
    monkeypatch.setenv("SSL_CERT_FILE", str(secure.authority_file))
    try:
        for text in refused(secure.url, effects, monkeypatch):
            assert f"the server's certificate is not accepted: {why}" in text
        leveret("queues", "--url", secure.url + "?verify=none")
    finally:
        secure.present(secure.authority.issue_cert("localhost", "127.0.0.1"))
        secure.reload()


def test_a_server_that_knows_no_newer_version_than_tls_1_1_is_refused(
    tmp_path: Path, effects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = SecureNode(tmp_path, "ssl_options.versions.1 = tlsv1.1")
    with old.node:
        old.wait()
        # Who still speaks TLS 1.1 is let in, so that only our refusal is seen.
        client = "openssl s_client -tls1_1 -cipher DEFAULT@SECLEVEL=0 -connect"
        spoken = subprocess.run(
            [*client.split(), f"127.0.0.1:{old.port}"], check=False, input=b"", capture_output=True
        ).stdout
        assert b"TLSv1.1" in spoken, spoken
        monkeypatch.setenv("SSL_CERT_FILE", str(old.authority_file))
        for text in refused(old.url, effects, monkeypatch):
            assert "the TLS handshake failed: the server does not speak TLS 1.2 or newer" in text
