"""A certificate authority of a test, and what it gives out."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)


class Ca:
    """`ca` is the file with its certificate. What it gives out is two files, certificate and key, named by what it is
    for."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        own = self._begun(self._name, self._key.public_key(), _DAY)
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._certificate = own.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def gives(self, name: str, *, life: datetime.timedelta = _DAY) -> tuple[Path, Path]:
        """For 127.0.0.1, until `life` from now; a negative one has passed."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        made = self._begun(subject, key.public_key(), life).add_extension(names, critical=False)
        certificate = made.add_extension(uses, critical=False).sign(self._key, hashes.SHA256())
        files = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        files[1].write_bytes(key.private_bytes(form, kind, serialization.NoEncryption()))
        return files

    def asking(self, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """Of a server that wants a certificate of this authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
        context.load_cert_chain(*self.gives("server"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = version
        return context

    def _begun(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, life: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        made = made.serial_number(x509.random_serial_number())
        return made.not_valid_before(now - 3 * _DAY).not_valid_after(now + life)


def serial(file: Path) -> int:
    """The number of the certificate in a file."""
    return x509.load_pem_x509_certificate(file.read_bytes()).serial_number


@contextlib.contextmanager
def terminated(tls: ssl.SSLContext, port: int, seen: list[int] | None = None) -> Iterator[int]:
    """A TLS server in front of a plain one at `port`, on blocking sockets: with these OpenSSL tells who was refused
    why, as most servers do; asyncio's transport drops the alert. `seen` gets the serial number of what each connection
    has shown."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                raw, _ = listener.accept()
                threading.Thread(target=connected, args=(raw,), daemon=True).start()

    def connected(raw: socket.socket) -> None:
        raw.settimeout(10)
        secure = tls.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        with contextlib.suppress(OSError), secure:
            try:
                secure.do_handshake()
            except ssl.SSLError:
                # Closing with something unread resets the connection, and the alert may never be seen.
                socket.socket.shutdown(secure, socket.SHUT_WR)
                while socket.socket.recv(secure, 65536):
                    pass
                return
            if seen is not None and (shown := secure.getpeercert(binary_form=True)) is not None:
                seen.append(x509.load_der_x509_certificate(shown).serial_number)
            with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
                back = threading.Thread(target=pump, args=(plain, secure), daemon=True)
                back.start()
                pump(secure, plain)
                back.join(10)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        listener.close()
