"""The one HTTP client to the running gateway: admin API, A2A JSON-RPC, and the event streams of both."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx2

from gateway.cli.exits import Refused, Stop, Unreachable
from gateway.cli.place import UNIX, Place, is_local

Json: TypeAlias = dict[str, Any]
Events: TypeAlias = Generator[Json, None, None]

# A gateway on this machine accepts at once. Its streams send comments while nothing happens; after a minute
# without even those the connection is taken for dead, and the task is subscribed to again.
_TIMEOUT = httpx2.Timeout(30.0, connect=5.0)
_STREAM_TIMEOUT = httpx2.Timeout(30.0, connect=5.0, read=60.0)

# One event may carry a file, and the gateway takes far smaller ones. Without a bound a wrong GATEWAY_URL
# could fill our memory.
_MAX_EVENT = 64 << 20

_A2A = {"A2A-Version": "1.0"}


class Gateway:
    """Asks the gateway at a place. Raises Stop with the gateway's own sentence when it refuses, Unreachable
    when no answer comes."""

    def __init__(self, place: Place) -> None:
        self.place = place
        credential = place.credential()
        self._known = credential is not None
        self._headers = {"Authorization": f"Bearer {credential}"} if credential else {}
        self._http = self._client(place.url)
        self._admin = self._http if place.admin is None else self._client(place.admin)

    def _client(self, url: str) -> httpx2.Client:
        socket = url.removeprefix(UNIX) if url.startswith(UNIX) else None
        return httpx2.Client(
            base_url="http://localhost" if socket else url,
            headers=self._headers,
            timeout=_TIMEOUT,
            transport=httpx2.HTTPTransport(uds=socket) if socket else None,
            # HTTP_PROXY is for the way out; the credential of this machine must not take it. SSL_CERT_FILE counts.
            trust_env=not is_local(url),
            verify=httpx2.create_ssl_context() if is_local(url) and url.startswith("https:") else True,
        )

    def _way(self, path: str) -> tuple[httpx2.Client, str]:
        """Who sends it, and where to."""
        if path.startswith("/admin/"):
            return self._admin, self.place.admin or self.place.url
        return self._http, self.place.url

    def __enter__(self) -> Gateway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        self._admin.close()

    # The admin API

    def get(self, *path: str, verb: str = "", **query: str | int | None) -> Json:
        return self._request("GET", _path(path, verb), params={k: v for k, v in query.items() if v is not None})

    def post(self, *path: str, body: Json | None = None, verb: str = "") -> Json:
        return self._request("POST", _path(path, verb), json=body)

    def form(self, *path: str, form: dict[str, str], auth: httpx2.Auth) -> Json:
        """The answer to a form that is sent with another credential than ours."""
        try:
            response = self._http.post(_path(path), data=form, auth=auth)
        except httpx2.TransportError as error:
            raise self._unreachable(error, self.place.url) from error
        answer = self._object(response, response.content)
        if response.status_code >= 400:
            said = answer.get("error_description") or answer.get("error")
            raise Stop(str(said) if isinstance(said, str) else _sentence(answer, "The gateway refused."))
        return answer

    def patch(self, *path: str, body: Json) -> Json:
        return self._request("PATCH", _path(path), json=body)

    def delete(self, *path: str) -> Json:
        return self._request("DELETE", _path(path))

    def watch(self, task_id: str) -> Events:
        """The events of a task, whoever owns it; the first one is the task as it stands."""
        return self._stream("GET", _path(("admin", "tasks", task_id), "watch"))

    def audit(self, **query: str | int | None) -> Events:
        """The newest entries of the audit log, then each as it is written."""
        path = _path(("admin", "audit"), "watch")
        return self._stream("GET", path, params={k: v for k, v in query.items() if v is not None})

    # A2A

    def call(self, agent: str, method: str, params: Json) -> Json:
        """The result of one JSON-RPC call to an agent."""
        return _result(self._request("POST", _path(("agents", agent)), json=_rpc(method, params), headers=_A2A))

    def stream(self, agent: str, method: str, params: Json) -> Events:
        """The StreamResponses of one streaming JSON-RPC call to an agent."""
        for answer in self._stream("POST", _path(("agents", agent)), json=_rpc(method, params), headers=_A2A):
            yield _result(answer)

    def subscribe(self, agent: str, task_id: str) -> Events:
        """The events of a task of the caller's own, the task first; of one that has ended the task alone."""
        try:
            yield from self.stream(agent, "SubscribeToTask", {"id": task_id})
        except Unreachable:
            raise
        except Stop:
            # A task that ended meanwhile cannot be subscribed to (A2A §3.1.6), but it can be read.
            yield {"task": self.call(agent, "GetTask", {"id": task_id})}

    def _request(self, method: str, path: str, **what: Any) -> Json:
        http, url = self._way(path)
        try:
            response = http.request(method, path, **what)
        except httpx2.TransportError as error:
            raise self._unreachable(error, url) from error
        return self._answer(response)

    def _stream(self, method: str, path: str, **what: Any) -> Events:
        headers = {**what.pop("headers", {}), "Accept": "text/event-stream"}
        http, url = self._way(path)
        try:
            with http.stream(method, path, headers=headers, timeout=_STREAM_TIMEOUT, **what) as response:
                if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    response.read()
                    yield self._answer(response)
                    return
                for body in events(response.iter_bytes()):
                    yield self._object(response, body)
        except httpx2.TransportError as error:
            raise self._unreachable(error, url) from error

    def _answer(self, response: httpx2.Response) -> Json:
        if response.status_code == 401:
            raise self._unauthenticated()
        if response.status_code == 204 and not response.content:
            return {}
        answer = self._object(response, response.content)
        if response.status_code >= 400:
            said = _sentence(answer, f"The gateway answered with status {response.status_code}.")
            raise Refused(said, response.status_code, _reason_of(answer))
        return answer

    def _object(self, response: httpx2.Response, body: bytes) -> Json:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict):
            return answer
        raise Stop(
            f"{self.place.url} answered with status {response.status_code} and not in the gateway's JSON. "
            "Is GATEWAY_URL right?"
        )

    def _unauthenticated(self) -> Stop:
        if self._known:
            return Stop(
                f"The gateway at {self.place.url} does not accept the credential. It was looked for in "
                f"{self.place.searched}. Is this the data folder that the gateway runs with?"
            )
        return Stop(
            f"The gateway at {self.place.url} wants a credential and none was found. It was looked for in "
            f"{self.place.searched}. Set GATEWAY_DATA to the data folder that the gateway runs with."
        )

    def _unreachable(self, error: httpx2.TransportError, url: str) -> Unreachable:
        if not isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)):
            return Unreachable(f"The connection to {url} broke ({_reason(error)}).", sent=True)
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            said = f"The certificate of {url} is not trusted here: {_reason(error)}."
            return Unreachable(f"{said} SSL_CERT_FILE names the file of the authorities that are.", sent=False)
        hint = f"Start it with: {self.place.serve()}" if self.place.loopback else "Is GATEWAY_URL right?"
        return Unreachable(f"No gateway answers at {url}: {_reason(error)}. {hint}", sent=False)


def access_token(place: Place, client: str, secret: str, scopes: Sequence[str], resource: str) -> str:
    """An access token of the gateway's own authorization server, by client credentials. Raises Stop, Unreachable."""
    if place.url.startswith("http:") and not place.loopback:
        raise Stop(f"{place.url} is not on this machine and not https, so the secret is not sent there.")
    form = {"grant_type": "client_credentials", "resource": resource}
    if scopes:
        form["scope"] = " ".join(scopes)
    basic = httpx2.BasicAuth(quote(client, safe=""), quote(secret, safe=""))
    with Gateway(place) as gateway:
        answer = gateway.form("oauth", "token", form=form, auth=basic)
    return str(answer.get("access_token"))


def events(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The data of each server-sent event. Only LF ends a line here, so U+2028 inside JSON stays inside."""
    held = bytearray()
    data: list[bytes] = []
    for chunk in chunks:
        held += chunk
        if len(held) + sum(map(len, data)) > _MAX_EVENT:
            raise Stop(f"The stream holds an event larger than {_MAX_EVENT} bytes.")
        if b"\n" not in chunk:
            continue
        *lines, held = held.split(b"\n")
        for whole in lines:
            text = bytes(whole.removesuffix(b"\r"))
            if text.startswith(b"data:"):
                data.append(text[5:].removeprefix(b" "))
            elif not text and data:
                yield b"\n".join(data)
                data = []


def _path(words: tuple[str, ...], verb: str = "") -> str:
    # Ids are others' words: a slash in one stays inside its segment, and dots are no way up.
    path = "".join("/" + (quote(word, safe="") if word.strip(".") else "%2E" * len(word)) for word in words)
    return f"{path}:{verb}" if verb else path


def _rpc(method: str, params: Json) -> Json:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def _result(answer: Json) -> Json:
    if "error" in answer:
        raise Stop(_sentence(answer, "The gateway refused without saying why."))
    result = answer.get("result")
    return result if isinstance(result, dict) else {}


def _sentence(answer: Json, otherwise: str) -> str:
    """The message of an error, whether the admin API's or JSON-RPC's."""
    error = answer.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) and message else otherwise


def _reason_of(answer: Json) -> str:
    """The reason in the error of an admin API's answer; empty if it has none."""
    error = answer.get("error")
    details = error.get("details") if isinstance(error, dict) else None
    first = details[0] if isinstance(details, list) and details else None
    return str(first.get("reason") or "") if isinstance(first, dict) else ""


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[0].lower() + cause.strerror[1:]
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
