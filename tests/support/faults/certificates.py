"""Certificates for tests, made by the `openssl` command: a good one, an expired one, one for another host.

A package that makes them would bring a whole cryptography library for three files.
"""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Certificates"]

_LOOPBACK = "DNS:localhost,IP:127.0.0.1"
_AUTHORITY = """
[ca]
default_ca = test
[test]
database = {folder}/index.txt
new_certs_dir = {folder}
serial = {folder}/serial
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
"""


@dataclass(frozen=True, slots=True)
class Certificates:
    """Is an authority of our own and what it has signed, as files in a folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Makes everything anew.

        Raises:
            FileNotFoundError: there is no `openssl` command.
        """
        made = cls(folder)
        (folder / "index.txt").touch()
        (folder / "index.txt.attr").write_text("unique_subject = no\n")
        (folder / "serial").write_text("1000\n")
        (folder / "ca.cnf").write_text(_AUTHORITY.format(folder=folder))
        _openssl(
            "req", "-x509", *made._new_key("authority"), "-subj", "/CN=Test authority", "-days", "3650",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", folder / "authority.crt",
        )  # fmt: skip
        made._sign("good", _LOOPBACK)
        made._sign("expired", _LOOPBACK, "-startdate", "20200101000000Z", "-enddate", "20200102000000Z")
        made._sign("other_host", "DNS:other.example")
        return made

    def server(self, name: str) -> ssl.SSLContext:
        """Gives a server's context that shows the certificate `good`, `expired` or `other_host`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context

    def client(self) -> ssl.SSLContext:
        """Gives a client's context that trusts the authority and nobody else."""
        return ssl.create_default_context(cafile=str(self.folder / "authority.crt"))

    def _sign(self, name: str, hosts: str, *dates: str) -> None:
        request = self.folder / f"{name}.csr"
        _openssl(
            "req", "-new", *self._new_key(name), "-subj", "/CN=Test service",
            "-addext", f"subjectAltName={hosts}", "-out", request,
        )  # fmt: skip
        _openssl(
            "ca", "-batch", "-notext", "-config", self.folder / "ca.cnf", "-in", request,
            "-cert", self.folder / "authority.crt", "-keyfile", self.folder / "authority.key",
            *(dates or ("-days", "3650")), "-out", self.folder / f"{name}.crt",
        )  # fmt: skip

    def _new_key(self, name: str) -> tuple[str | Path, ...]:
        key = self.folder / f"{name}.key"
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key)


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(("openssl", *arguments), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
