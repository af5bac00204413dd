"""`gateway users` and the commands for clients that people are asked by."""

from __future__ import annotations

from pathlib import Path

from tests.journeys.people import BACK
from tests.person import PASSWORD
from tests.remote import command, process


def test_users_are_made_by_a_command_that_never_sees_a_password_in_its_words(tmp_path: Path) -> None:
    with process(tmp_path, "auth: {authorization_server: {users: true}}\n") as gateway:
        made = command(tmp_path, "users", "add", "ada", "--role", "clerk", url=gateway.url, stdin=PASSWORD + "\n")
        assert made.returncode == 0, made.stderr
        assert "oauth:gateway#user:ada" in made.stderr
        short = command(tmp_path, "users", "add", "bob", url=gateway.url, stdin="short\n")
        assert (short.returncode, "12 to 256" in short.stderr) == (1, True)
        listed = command(tmp_path, "users", "list", url=gateway.url).stdout
        assert listed.splitlines()[1].split()[:2] == ["ada", "clerk"]
        changed = command(tmp_path, "users", "password", "ada", url=gateway.url, stdin="another long password\n")
        assert changed.returncode == 0, changed.stderr
        assert command(tmp_path, "users", "remove", "ada", url=gateway.url).returncode == 0
        invited = command(tmp_path, "clients", "invite", url=gateway.url)
        assert invited.stdout.count(".") == 2
        public = command(
            tmp_path,
            *("clients", "add", "app", "--public", "--grant", "authorization_code", "--redirect", BACK),
            url=gateway.url,
        )
        assert (public.returncode, public.stdout) == (0, ""), public.stderr
