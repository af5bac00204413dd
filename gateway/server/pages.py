"""How pages look that people see, and what they may do: plain HTML; no script, nothing from elsewhere, in no frame."""

from __future__ import annotations

import base64
import hashlib
from html import escape

from starlette.responses import Response

from gateway.model.errors import whole_seconds

_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { margin: 10vh auto 2rem; max-width: 26rem; padding: 0 1.25rem; overflow-wrap: anywhere }
h1 { font-size: 1.4rem; line-height: 1.3 }
label, input, button, .button { display: block; width: 100%; box-sizing: border-box; font: inherit }
label { margin-top: 1rem }
input, button, .button { padding: .6rem .75rem; border-radius: .4rem; border: 1px solid }
button, .button { margin-top: 1rem; cursor: pointer; text-align: center }
button.first { background: #0b57d0; color: #fff; border-color: #0b57d0 }
button.plain { border: 0; background: none; text-decoration: underline; color: inherit }
a { color: inherit }
dt { margin-top: .75rem; opacity: .75 }
dd, pre { margin: 0 }
pre { white-space: pre-wrap; font: .85rem/1.4 ui-monospace, monospace; border-left: .3rem solid; padding-left: .75rem }
[role=alert] { border-left: .3rem solid #c5221f; padding: .25rem .75rem }
:focus-visible { outline: 3px solid #f9ab00; outline-offset: 2px }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def page(title: str, body: str, status: int = 200, *, leads_to: str = "", retry_after: float | None = None) -> Response:
    """`leads_to` is where a form's answer may redirect: browsers hold the whole chain to `form-action`."""
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    form_action = f"'self' {leads_to}".strip()
    headers = {
        "content-security-policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action {form_action}; "
        "frame-ancestors 'none'; base-uri 'none'",
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        # Not no-referrer: with that, browsers send `Origin: null` with the forms of these very pages.
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-store",
    }
    if retry_after is not None:
        headers["retry-after"] = str(whole_seconds(retry_after))
    return Response(html, status, headers, "text/html")


def sentence(title: str, text: str, status: int = 200, *, retry_after: float | None = None) -> Response:
    return page(title, f"<p>{escape(text)}</p>", status, retry_after=retry_after)
