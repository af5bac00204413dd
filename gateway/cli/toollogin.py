"""`gateway tools login` and `logout`: a person lets the gateway use a tool server that asks for OAuth."""

from __future__ import annotations

import argparse
from urllib.parse import parse_qs, urlsplit

from gateway.cli.client import Gateway
from gateway.cli.connections import ENDINGS
from gateway.cli.exits import Exit, Stop
from gateway.cli.place import Place
from gateway.cli.redirect import Redirect
from gateway.cli.text import dump, line, note, say


def login(options: argparse.Namespace) -> Exit:
    """Opens nothing: the person decides which browser sees the URL. What comes back never stands in an argument."""
    place = Place.of(options.data)
    with Redirect() as redirect, Gateway(place) as gateway:
        body = {"server": options.server, "redirectUri": redirect.uri}
        url = str(gateway.post("admin", "tools", body=body, verb="login").get("authorizationUrl"))
        state = parse_qs(urlsplit(url).query).get("state", [""])[-1]
        if urlsplit(url).scheme not in ("http", "https") or not url.isprintable() or " " in url or not state:
            raise Stop(f"{line(options.server)} sends to an address that no browser should open")
        note(f"Open this in a browser on this machine, and decide there what the gateway may do at {options.server}:")
        say(url)
        answer = redirect.answer(state)
        if answer is None:
            raise Stop("Nobody came back from there in time; nothing has changed.")
        done = gateway.post("admin", "tools", body={"server": options.server, "response": answer}, verb="authorized")
    if done.get("up"):
        note(f"The gateway may use {options.server} now.")
    else:
        note(f"The authorization is stored. {options.server} does not answer as it should yet; look with:")
        note(f"  {place.command('tools', 'list', options.server)}")
    return Exit.DONE


def logout(options: argparse.Namespace) -> Exit:
    with Gateway(Place.of(options.data)) as gateway:
        done = gateway.post("admin", "tools", body={"server": options.server}, verb="logout")
    if options.json:
        dump(done)
        return Exit.DONE
    if issuer := done.get("issuer"):
        note(f"Forgotten, {ENDINGS[issuer].format('its issuer')}")
    for ending, count in (done.get("callers") or {}).items():
        note(f"Forgotten for {count} {'caller' if count == 1 else 'callers'}, {ENDINGS[ending].format('the issuer')}")
    if not done.get("forgotten"):
        note(f"There was no authorization for {line(options.server)}.")
    return Exit.DONE
