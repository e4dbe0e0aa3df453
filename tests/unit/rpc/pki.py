# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates of every kind for tests, by the openssl command, and client contexts that use them."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Pki:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("certs", "keys", "other"):
            (folder / name).mkdir(parents=True)
        self.authority("certs/cacert")
        self.authority("other/foreign")
        self.issue("certs/vdsmcert", "host", key="keys/vdsmkey")
        self.issue("other/engine", "engine")
        self.issue("other/neighbour", "neighbour")
        self.issue("other/stranger", "stranger", by="other/foreign")
        self.issue("other/old", "old", days=-1)

    def authority(self, name: str) -> None:
        _openssl("req", "-x509", *KEY, "-days", "2", "-subj", f"/CN={Path(name).name}", *self._files(name, name))

    def issue(self, name: str, subject: str, *, key: str = "", by: str = "certs/cacert", days: int = 1) -> None:
        """``days`` below zero: expired."""
        request = self.folder / "request.pem"
        key = key or name
        _openssl("req", "-new", *KEY, "-subj", f"/CN={subject}", "-keyout", str(self._key(key)), "-out", str(request))
        extensions = self.folder / "extensions"
        extensions.write_text("basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n")
        _openssl(
            *("x509", "-req", "-in", str(request), "-days", str(days), "-extfile", str(extensions)),
            *("-CA", f"{self.folder}/{by}.pem", "-CAkey", str(self._key(by)), "-CAcreateserial"),
            *("-out", f"{self.folder}/{name}.pem"),
        )

    def client(self, name: str = "engine") -> ssl.SSLContext:
        """A client's context with that pair; an empty name: without one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.folder / "certs/cacert.pem")
        if name:
            context.load_cert_chain(self.folder / f"other/{name}.pem", self._key(f"other/{name}"))
        return context

    def engine(self) -> ssl.SSLContext:
        """The engine offers TLS 1.2 at most."""
        context = self.client()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    def _files(self, name: str, key: str) -> tuple[str, ...]:
        return ("-keyout", str(self._key(key)), "-out", f"{self.folder}/{name}.pem")

    def _key(self, name: str) -> Path:
        return self.folder / (f"{name}.pem" if name.startswith("keys/") else f"{name}.key")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
