"""Where the gateway is and where its credential lies, from options and environment."""

from __future__ import annotations

import ipaddress
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from gateway.cli.exits import Exit, Stop
from gateway.cli.text import line

URL = "http://127.0.0.1:8080"
UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Place:
    """One gateway as the commands see it. `data` is None when there is no home folder to have it in."""

    url: str = URL
    data: Path | None = None
    token: str | None = None
    admin: str | None = None  # URL or unix:PATH of /admin, where it is not at `url`

    @classmethod
    def of(cls, data: Path | None, environ: Mapping[str, str] | None = None) -> Place:
        environ = os.environ if environ is None else environ
        url, folder = _checked(environ.get("GATEWAY_URL") or URL), data_folder(data, environ)
        named = environ.get("GATEWAY_ADMIN_URL") or (_advertised(folder) if is_local(url) else None)
        return cls(
            url,
            folder,
            (environ.get("GATEWAY_TOKEN") or "").strip() or None,
            named if named is None or named.startswith(UNIX) else _checked(named, "GATEWAY_ADMIN_URL"),
        )

    @property
    def token_file(self) -> Path | None:
        return self.data / "token" if self.data else None

    @property
    def loopback(self) -> bool:
        return is_local(self.url)

    @property
    def searched(self) -> str:
        """Where a credential is looked for, in a sentence."""
        return f"GATEWAY_TOKEN, then {self.token_file or 'DATA/token (no data folder: HOME is not set)'}"

    def credential(self) -> str | None:
        """The credential to send; None when there is none.

        The file's credential may do everything, so it does not cross a network in clear text by mistake.
        """
        if self.token:
            found: str | None = self.token
        elif found := self._from_file():
            for url in (self.url, self.admin or self.url):
                if url.startswith("http:") and not is_local(url):
                    raise Stop(
                        f"{url} is not on this machine and not https, so {self.token_file} is not sent there. "
                        "Use https, or set GATEWAY_TOKEN to the credential that is meant for it."
                    )
        if found is not None and not (found.isascii() and found.isprintable() and " " not in found):
            raise Stop("The credential is not one line of printable characters. It was looked for in " + self.searched)
        return found

    def _from_file(self) -> str | None:
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise Stop(f"{self.token_file} does not hold a credential") from None
        except OSError as error:
            raise Stop(f"{self.token_file} cannot be read: {error.strerror}") from None

    def command(self, *words: str) -> str:
        """A command for this gateway to copy as it stands: quoted, on one line, without a secret."""
        settings = []
        if self.url != URL:
            settings.append("GATEWAY_URL=" + shlex.quote(self.url))
        if self.data is not None and self.data != data_folder(None, _without_ours()):
            settings.append("GATEWAY_DATA=" + shlex.quote(str(self.data)))
        return " ".join([*settings, shlex.quote(program()), *(shlex.quote(line(word, 1000)) for word in words)])

    def serve(self) -> str:
        """The command that starts a gateway here."""
        port = urlsplit(self.url).port or 80
        options = [] if port == urlsplit(URL).port else ["--port", str(port)]
        return replace(self, url=URL).command("serve", *options)


def is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or url.startswith(UNIX)


def _advertised(data: Path | None) -> str | None:
    """What the gateway of this folder has written there, while /admin has a listener of its own."""
    try:
        return None if data is None else (data / "admin").read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def data_folder(named: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The rule of `gateway.config.settings`, without its imports; a test holds the two together."""
    if chosen := named or environ.get("GATEWAY_DATA"):
        return Path.cwd() / chosen
    shared = environ.get("XDG_DATA_HOME", "")
    if shared.startswith("/"):
        return Path(shared) / "gateway"
    home = environ.get("HOME")
    return Path(home) / ".local" / "share" / "gateway" if home else None


def program() -> str:
    """This program as a shell in this folder finds it: `.venv/bin/gateway` in a checkout, else `gateway`."""
    called = Path(sys.argv[0])
    if called.name != "gateway":  # python -m gateway, or a test
        called = Path(sys.executable).with_name("gateway")
    if not called.exists():
        return "gateway"
    absolute, here = Path(os.path.abspath(called)), Path.cwd()
    if absolute.is_relative_to(here):
        relative = absolute.relative_to(here)
        return str(relative) if relative.parent.name else f"./{relative}"
    found = shutil.which("gateway")
    return "gateway" if found and Path(found) == absolute else str(absolute)


def _without_ours() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "GATEWAY_DATA"}


def _checked(url: str, name: str = "GATEWAY_URL") -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable or parts.query or parts.fragment:
        raise Stop(f"{name} must be http(s)://HOST[:PORT], for example {URL}; it is {url}", Exit.USAGE)
    if parts.username is not None:
        raise Stop(f"{name} must not hold a user or password; set GATEWAY_TOKEN to the credential", Exit.USAGE)
    return url.rstrip("/")
