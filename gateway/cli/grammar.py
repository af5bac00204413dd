"""Every command of the program on one page: its words, their help, and the function that does it.

Nothing here imports what a command needs: `run` is `module:function` in `gateway.cli`, imported when called.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gateway.cli.parser import Parser, Version, as_json, count, data_folder

STATES = (
    "submitted", "working", "input-required", "auth-required", "completed", "failed", "canceled", "rejected",
)  # fmt: skip

EXPORTS = ("jsonl", "ocsf", "cloudevents", "otlp")

BALANCES = ("round_robin", "least_loaded")

CLIENTS = ("claude-code", "cursor", "vscode", "inspector")

ENVIRONMENT = {
    "GATEWAY_URL": "Where the running gateway is. Default: `http://127.0.0.1:8080`.",
    "GATEWAY_ADMIN_URL": "Where its admin API is, a URL or `unix:PATH`. Default: what `admin` in the data folder says, "
    "which is there while it has a listener of its own; else `GATEWAY_URL`.",
    "GATEWAY_TOKEN": "The credential. Default: the content of `token` in the data folder.",
    "GATEWAY_CLIENT_SECRET": "The secret of the client that `gateway token --client` gets a token for.",
    "GATEWAY_DATA": "The data folder. Default: `$XDG_DATA_HOME/gateway`, else `~/.local/share/gateway`.",
    "GATEWAY_CONFIG": "The file of `serve`. Default: `./gateway.yaml` if it is there, else a demo.",
}


def program() -> Parser:
    top = Parser(
        prog="gateway",
        description="A gateway between agents and tools: A2A, MCP and their older dialects.",
        epilog="Environment: " + ", ".join(ENVIRONMENT) + ". `gateway COMMAND --help` says more.",
    )
    top.add_argument("--version", action=Version, help="Print the version.")
    for command in COMMANDS:
        command(top)
    return top


def _serve(top: Parser) -> None:
    serve = top.command("serve", "Run the gateway.", "serve:serve")
    serve.add_argument("--config", type=Path, metavar="FILE", help="The configuration file.")
    serve.add_argument("--host", metavar="ADDRESS", help="Address to listen on. Default: 127.0.0.1.")
    serve.add_argument("--port", type=int, metavar="PORT", help="Port to listen on. Default: 8080; 0: any free one.")
    serve.add_argument("--grpc-port", type=int, metavar="PORT", help="Serve A2A over gRPC on this port, too.")
    data_folder(serve)
    serve.add_argument(
        "--store", metavar="URL", help="Where tasks and the audit log are kept: sqlite:///PATH or memory:."
    )
    serve.add_argument(
        "--anonymous",
        action="store_true",
        default=None,
        help="Let calls without a credential use public agents; loopback only.",
    )


def _token(top: Parser) -> None:
    token = top.command(
        "token", "Print the local credential of the data folder, or get an access token for a client.", "token:token"
    )
    data_folder(token)
    token.add_argument("--client", metavar="ID", help="Get an access token for this client instead.")
    token.add_argument(
        "--secret-file",
        type=Path,
        metavar="FILE",
        help="Where the client's secret is. Default: GATEWAY_CLIENT_SECRET.",
    )
    token.add_argument("--scope", action="append", default=[], metavar="SCOPE", help="Ask for this scope only.")
    token.add_argument("--agent", metavar="ID", help="Get a token for this agent only.")


def _send(top: Parser) -> None:
    send = top.command("send", "Send a message to an agent and print its answer as it comes.", "send:send")
    send.add_argument("agent", metavar="AGENT", help="The agent's id, as `gateway agents list` shows it.")
    send.add_argument("text", nargs="*", metavar="TEXT", help="What to say; `-` reads it from standard input.")
    send.add_argument(
        "--file",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="Attach a file. May be repeated.",
    )
    send.add_argument(
        "--data", action="append", default=[], metavar="JSON", help="Attach a JSON value. May be repeated."
    )
    send.add_argument("--task", metavar="ID", help="Go on with this task, for example to answer its question.")
    send.add_argument("--context", metavar="ID", help="Go on with this conversation.")
    send.add_argument(
        "--message-id",
        metavar="ID",
        help="The message's id: the same id is done only once, however often it is sent.",
    )
    send.add_argument("--no-wait", action="store_true", help="Return once the task is accepted, and print its id.")
    send.add_argument("--out", type=Path, metavar="DIR", help="Save files of the answer in this folder.")
    as_json(send, "Print the final task or message as one JSON value.")


def _tasks(top: Parser) -> None:
    tasks = top.command("tasks", "See, watch, cancel and share tasks.")
    listing = tasks.command("list", "List tasks, the one that changed last first.", "tasks:list_tasks")
    listing.add_argument("--agent", metavar="ID", help="Only this agent's tasks.")
    listing.add_argument(
        "--status",
        choices=STATES,
        metavar="STATE",
        help="Only tasks in this state: " + ", ".join(STATES) + ".",
    )
    listing.add_argument("--context", metavar="ID", help="Only this conversation's tasks.")
    listing.add_argument("--limit", type=count, default=50, metavar="N", help="At most so many. Default: 50.")
    get = tasks.command("get", "Show one task with its results.", "tasks:get_task")
    cancel = tasks.command("cancel", "Cancel a task.", "tasks:cancel_task")
    watch = tasks.command("watch", "Follow a task until it ends or waits for somebody.", "tasks:watch_task")
    share = tasks.command("share", "Let somebody else read one task.", "tasks:share_task")
    unshare = tasks.command("unshare", "Let them read it no more.", "tasks:unshare_task")
    shares = tasks.command("shares", "List who may read one task beside its owner.", "tasks:list_shares")
    for verb in (get, cancel, watch, share, unshare, shares):
        verb.add_argument("id", metavar="ID", help="The task's id.")
    for verb in (get, watch):
        verb.add_argument("--out", type=Path, metavar="DIR", help="Save files of the results in this folder.")
    for verb in (share, unshare):
        verb.add_argument(
            "--with",
            dest="reader",
            required=True,
            metavar="NAME",
            help="Who, as rules name one principal: bob, user:ada, client:robot, oauth:ISSUER#SUBJECT, spiffe://….",
        )
    share.add_argument(
        "--until", metavar="TIME", help="When it ends, such as 2026-11-21T08:00:00Z; when you take it back, without it."
    )
    for verb in (listing, get, cancel, share, shares):
        as_json(verb)
    as_json(watch, "Print each event as one line of JSON.")
    _with_data_folder(tasks)


def _agents(top: Parser) -> None:
    agents = top.command("agents", "See, add, change and remove agents.")
    every = agents.command("list", "List the agents.", "agents:list_agents")
    show = agents.command("show", "Show one agent's card.", "agents:show_agent")
    add = agents.command("add", "Add a remote agent by the URL of its card.", "agents:add_agent")
    servers = agents.command("endpoints", "Say on which further servers an added agent is.", "agents:place_agent")
    pin = agents.command("pin", "Say who has to have signed the card of an added agent.", "agents:pin_agent")
    remove = agents.command("remove", "Remove an agent that was added.", "agents:remove_agent")
    search = agents.command("find", "Find agents by what they and their skills do.", "agents:find_agents")
    search.add_argument("text", nargs="+", metavar="TEXT", help="What is to be done, in a few words.")
    search.add_argument("--limit", type=count, default=10, metavar="N", help="At most so many. Default: 10.")
    show.add_argument("id", metavar="ID", help="The agent's id.")
    add.add_argument("url", metavar="URL", help="Where the agent's card is, or the agent's own address.")
    add.add_argument("--id", metavar="ID", help="The id it gets here. Default: made from the card's name.")
    add.add_argument(
        "--endpoint", action="append", metavar="URL", help="The card of a further server; can be repeated."
    )
    for verb in (servers, pin, remove):
        verb.add_argument("id", metavar="ID", help="The agent's id.")
    servers.add_argument("url", nargs="*", metavar="URL", help="The cards there, all of them; none: only the first.")
    for verb in (add, servers):
        verb.add_argument("--balance", choices=BALANCES, help="Which server gets a message. Default: round_robin.")
    for verb in (add, pin):
        whose = verb.add_mutually_exclusive_group(required=verb is pin)
        whose.add_argument("--keys", type=Path, metavar="FILE", help="A JWK set: only these keys may sign its card.")
        whose.add_argument("--keys-url", metavar="URL", help="Where that set is.")
        whose.add_argument("--require-signature", action="store_true", help="Its card has to be signed, by any key.")
        if verb is pin:
            whose.add_argument("--none", action="store_true", help="Its card need not be signed any more.")
    for verb in (every, show, add, servers, pin, search):
        as_json(verb)
    _with_data_folder(agents)


def _cards(top: Parser) -> None:
    cards = top.command("cards", "Check agent cards, and see what became of one here.")
    check = cards.command("verify", "Check the signatures of a card; exit 0 when one fits.", "cards:verify")
    check.add_argument("url", metavar="URL", help="Where the card is, or the agent's own address.")
    check.add_argument("--keys", type=Path, metavar="FILE", help="A JWK set: only these keys may have signed it.")
    told = cards.command("show", "Show what was received, its signature's verdict, what is served.", "cards:show")
    taken_anew = cards.command("accept", "Take an agent's card that is no longer signed.", "cards:accept")
    for verb in (told, taken_anew):
        verb.add_argument("agent", metavar="AGENT", help="The agent's id, as `gateway agents list` shows it.")
    for verb in (check, told, taken_anew):
        as_json(verb)
    _with_data_folder(cards)


def _keys(top: Parser) -> None:
    keys = top.command("keys", "Make, list and revoke API keys.")
    new = keys.command("add", "Make an API key. It is shown this one time.", "keys:add_key")
    new.add_argument("name", metavar="NAME", help="Who or what the key is for.")
    known = keys.command("list", "List the API keys, without the keys themselves.", "keys:list_keys")
    revoke = keys.command("revoke", "Revoke an API key.", "keys:revoke_key")
    revoke.add_argument("id", metavar="ID", help="The key's id, as `gateway keys list` shows it.")
    for verb in (new, known):
        as_json(verb)
    _with_data_folder(keys)


def _tools(top: Parser) -> None:
    tools = top.command("tools", "See, try, add and approve the tools of MCP servers.")
    seen = tools.command("list", "List the MCP servers, or the tools of one.", "tools:list_tools")
    seen.add_argument("server", nargs="?", metavar="SERVER", help="Only this server, with its tools.")
    shown = tools.command("show", "Show one tool as its server describes it.", "tools:show_tool")
    shown.add_argument("name", metavar="SERVER/TOOL", help="The tool's name, as `gateway tools list SERVER` shows it.")
    call = tools.command("call", "Call a tool and print its result.", "tools:call_tool")
    call.add_argument("name", metavar="SERVER/TOOL", help="The tool's name.")
    call.add_argument("arguments", nargs="?", default="{}", metavar="JSON", help="Its arguments, a JSON object.")
    approve = tools.command("approve", "Show what waits for approval, and let it out of quarantine.", "tools:approve")
    approve.add_argument("name", metavar="SERVER[/TOOL]", help="One tool, or all that waits at a server.")
    approve.add_argument(
        "--hash", default="", metavar="HASH", help="How its hash begins, where callers see different forms of one name."
    )
    approve.add_argument("--yes", action="store_true", help="Approve it; without this it is only shown.")
    login = tools.command(
        "login", "Authorize the gateway at a server that asks for OAuth, in a browser.", "toollogin:login"
    )
    logout = tools.command(
        "logout", "Forget the authorization at a server, and give its tokens back there.", "toollogin:logout"
    )
    for verb in (login, logout):
        verb.add_argument("server", metavar="SERVER", help="The server's name, as `gateway tools list` shows it.")
    tools.command("reload", "Have the gateway read tools, mounts and grants of its file again.", "tools:reload")
    tools.command("lock", "Print the hashes of all tools that are offered, for a file in Git.", "tools:lock")
    verify = tools.command("verify", "Compare the tools with a lock file.", "tools:verify")
    verify.add_argument("file", type=Path, metavar="FILE", help="What `gateway tools lock` printed.")
    insert = tools.command("add", "Write an MCP server into the configuration file.", "toolfile:add")
    insert.add_argument("name", metavar="NAME", help="What the server is called here: a-z, 0-9 and '-'.")
    insert.add_argument(
        "text", nargs="*", metavar="URL | -- COMMAND", help="Its URL, or -- and the command that it is."
    )
    taken = tools.command("import", "Take the servers of an mcp.json into the configuration file.", "toolfile:take")
    taken.add_argument("file", type=Path, metavar="FILE", help="A file with mcpServers, as MCP clients have them.")
    given = tools.command("grant", "Let somebody use tools: write a grant into the file.", "grantfile:grant")
    back = tools.command("revoke", "Take tools out of somebody's grants in the file.", "grantfile:revoke")
    for verb in (given, back):
        verb.add_argument("to", metavar="WHO", help="A key's name, agent:NAME, client:NAME, user:NAME, role:NAME or *.")
    given.add_argument("tools", nargs="+", metavar="TOOL", help="SERVER, or SERVER/PATTERN.")
    back.add_argument("tools", nargs="*", metavar="TOOL", help="What to take out, as the file has it.")
    back.add_argument("--all", action="store_true", help="All their tools.")
    for verb in (insert, taken, given, back):
        verb.add_argument("--config", type=Path, metavar="FILE", help="The file. Default: the one that `serve` reads.")
    for verb in (seen, shown, call, approve, logout):
        as_json(verb)
    _with_data_folder(tools)


def _connect(top: Parser) -> None:
    connect = top.command(
        "connect", "Show or write the settings with which an MCP client uses this gateway.", "connect:connect"
    )
    connect.add_argument("client", choices=CLIENTS, metavar="CLIENT", help="One of " + ", ".join(CLIENTS) + ".")
    connect.add_argument("--mount", metavar="NAME", help="A mount of the configuration. Default: all tools.")
    connect.add_argument("--write", action="store_true", help="Write them into the client's file in this folder.")
    data_folder(connect)


def _clients(top: Parser) -> None:
    clients = top.command("clients", "Make, list, change and revoke clients of the gateway's authorization server.")
    made = clients.command("add", "Make a client. Its secret is shown this one time.", "clients:add_client")
    made.add_argument("id", metavar="NAME", help="The client's id; the caller is known by it.")
    made.add_argument("--scope", action="append", default=[], metavar="SCOPE", help="A scope it may have.")
    made.add_argument(
        "--grant",
        action="append",
        default=[],
        metavar="GRANT",
        help="How it gets tokens: client_credentials (the default), authorization_code, refresh_token, device_code or "
        "token_exchange. May be repeated.",
    )
    made.add_argument(
        "--redirect", action="append", default=[], metavar="URI", help="Where people come back to it. May be repeated."
    )
    made.add_argument("--name", default="", metavar="TEXT", help="What people are shown.")
    made.add_argument("--public", action="store_true", help="It runs on people's machines and can keep no secret.")
    invited = clients.command(
        "invite", "Print a token with which a client may register itself at /oauth/register.", "clients:invite_client"
    )
    invited.add_argument("--hours", type=count, default=1, metavar="N", help="How long it is good. Default: 1.")
    all_of_them = clients.command("list", "List the clients, without their secrets.", "clients:list_clients")
    ended = clients.command("revoke", "Revoke a client and the tokens that it has.", "clients:revoke_client")
    renewed = clients.command(
        "rotate",
        "Give a client a new secret, shown this one time; the old one and tokens that were got with it are refused.",
        "clients:rotate_client",
    )
    for verb in (ended, renewed):
        verb.add_argument("id", metavar="NAME", help="The client's id, as `gateway clients list` shows it.")
    for verb in (made, all_of_them, renewed):
        as_json(verb)
    _with_data_folder(clients)


def _policy(top: Parser) -> None:
    policy = top.command("policy", "See, explain and reload the rules of who may do what.")
    rules = policy.command("show", "Print the rules that hold, as a policy file.", "policy:show")
    why = policy.command("explain", "Say why somebody may or may not do something.", "policy:explain")
    why.add_argument("--as", dest="principal", required=True, metavar="NAME", help="Who: a key's name, agent:NAME, …")
    why.add_argument(
        "--do", dest="action", required=True, metavar="CALL", help="What: call, or an action like tools/call."
    )
    why.add_argument(
        "--on", dest="target", required=True, metavar="TARGET", help="On what: an agent, SERVER/TOOL, gateway."
    )
    why.add_argument("--with", dest="arguments", default="{}", metavar="JSON", help="The arguments, a JSON object.")
    why.add_argument("--for", dest="behalf", metavar="NAME", help="On whose behalf an agent asks.")
    why.add_argument("--role", action="append", default=[], metavar="ROLE", help="A role of its access token.")
    why.add_argument("--scope", action="append", default=[], metavar="SCOPE", help="A scope of the caller's token.")
    why.add_argument("--label", action="append", default=[], metavar="LABEL", help="What the conversation has met.")
    why.add_argument("--at", metavar="TIME", help="When, like 2026-11-26T09:30:00Z. Default: now.")
    policy.command("reload", "Have the gateway read its policy file now.", "policy:reload")
    tried = policy.command(
        "shadow", "List what the policy that is tried out would have decided otherwise.", "policy:shadow"
    )
    past = policy.command("replay", "Decide what was recorded by another policy, and list what flips.", "policy:replay")
    past.add_argument("file", type=Path, metavar="FILE", help="The other policy file.")
    past.add_argument(
        "--last", type=int, default=100_000, metavar="N", help="So many entries of the record. Default: 100000."
    )
    for verb in (rules, why, tried, past):
        as_json(verb)
    _with_data_folder(policy)


def _compliance(top: Parser) -> None:
    compliance = top.command("compliance", "See and reload what may pass in messages, arguments and results.")
    rules = compliance.command("show", "Print the compliance profile that holds.", "compliance:show")
    compliance.command("reload", "Have the gateway read its compliance profile now.", "compliance:reload")
    as_json(rules)
    _with_data_folder(compliance)


def _freezing(top: Parser) -> None:
    freeze = top.command("freeze", "Let an agent or principal do nothing more, and stop its work.", "freezing:freeze")
    thaw = top.command("thaw", "Let a frozen agent or principal work again.", "freezing:thaw")
    cold = top.command("frozen", "List what is frozen.", "freezing:frozen")
    for verb in (freeze, thaw):
        verb.add_argument("kind", choices=("agent", "principal"), metavar="KIND", help="agent or principal.")
        verb.add_argument("name", metavar="NAME", help="The agent's id, or the principal as a policy names it.")
    freeze.add_argument("--reason", default="", metavar="TEXT", help="Why, for whoever is refused.")
    for verb in (freeze, thaw, cold):
        data_folder(verb)
    for verb in (freeze, cold):
        as_json(verb)


def _approvals(top: Parser) -> None:
    approvals = top.command("approvals", "See which calls wait for a person, and answer them.")
    waiting = approvals.command("list", "List what waits.", "approvals:listing")
    waiting.add_argument("--all", action="store_true", help="The decided ones too, the newest first.")
    waiting.add_argument("--limit", type=count, default=100, metavar="N", help="At most so many. Default: 100.")
    waiting.add_argument("--before", metavar="ID", help="Only those that were asked for before this one.")
    one = approvals.command("show", "Show one in full: who asks for what, with which words.", "approvals:show")
    agreed = approvals.command("approve", "Let the call be made, once.", "approvals:approve")
    edited = approvals.command("edit", "Let it be made with other arguments.", "approvals:edit")
    refused = approvals.command("reject", "Refuse it.", "approvals:reject")
    for verb in (one, agreed, edited, refused):
        verb.add_argument("id", metavar="ID", help="As `gateway approvals list` shows it.")
    agreed.add_argument(
        "--seen",
        metavar="DIGEST",
        help="Only as it was when `show --json` gave this `released`. Needed once somebody has edited it.",
    )
    what = edited.add_mutually_exclusive_group(required=True)
    what.add_argument("--with", dest="arguments", metavar="JSON", help="The arguments: an object, whole.")
    what.add_argument("--text", metavar="TEXT", help="Of a message: what it says instead.")
    for verb in (agreed, edited, refused):
        verb.add_argument("--reason", default="", metavar="TEXT", help="Why, for the record and for who asked.")
    for verb in (waiting, one, agreed, edited, refused):
        as_json(verb)
    _with_data_folder(approvals)


def _push(top: Parser) -> None:
    push = top.command("push", "See what waits for webhooks, and try again what was given up.")
    waiting = push.command("show", "Show what waits for webhooks, and why.", "push:show")
    dead = push.command("dead", "List the push notifications that were given up.", "push:dead")
    dead.add_argument("--after", type=int, default=0, metavar="ID", help="Only those after this one.")
    replay = push.command("replay", "Try again what was given up.", "push:replay")
    replay.add_argument("id", nargs="?", type=int, metavar="ID", help="The one, as `gateway push dead` shows it.")
    replay.add_argument("--all", action="store_true", help="All of them.")
    for verb in (waiting, dead):
        verb.add_argument("--limit", type=count, default=100, metavar="N", help="At most so many. Default: 100.")
    for verb in (waiting, dead, replay):
        as_json(verb)
    _with_data_folder(push)


def _users(top: Parser) -> None:
    users = top.command("users", "Make, list and remove people who may log in with a password.")
    person = users.command("add", "Make a user. The password is asked for, or read from a pipe.", "users:add_user")
    person.add_argument("name", metavar="NAME", help="What the person types to log in; they are known by it.")
    person.add_argument("--role", action="append", default=[], metavar="ROLE", help="A role. May be repeated.")
    everybody = users.command("list", "List the users.", "users:list_users")
    gone = users.command("remove", "Remove a user, and refuse the tokens with their name.", "users:remove_user")
    changed = users.command(
        "password", "Give a user a new password; what the old one opened is closed.", "users:password"
    )
    for verb in (gone, changed):
        verb.add_argument("name", metavar="NAME", help="The user's name, as `gateway users list` shows it.")
    for verb in (person, everybody):
        as_json(verb)
    _with_data_folder(users)


def _grants(top: Parser) -> None:
    grants = top.command("grants", "See and end what people have allowed clients.")
    listed = grants.command("list", "List what is allowed, and until when.", "grants:list_grants")
    listed.add_argument("--client", metavar="ID", help="Only to this client.")
    listed.add_argument("--person", metavar="SUBJECT", help="Only by this person, as the list shows them.")
    gone = grants.command("remove", "End one, and refuse every token that came of it.", "grants:remove_grant")
    gone.add_argument("id", metavar="ID", help="The grant, as `gateway grants list` shows it.")
    as_json(listed)
    _with_data_folder(grants)


def _connections(top: Parser) -> None:
    connections = top.command(
        "connections", "See and end what people let the gateway use elsewhere, in their own name."
    )
    listed = connections.command("list", "List who has connected what, since when.", "connections:list_connections")
    gone = connections.command(
        "remove",
        "Forget connections, and give their tokens back to who gave them, where that takes any.",
        "connections:remove_connections",
    )
    gone.add_argument("id", nargs="?", metavar="ID", help="The one, as `gateway connections list` shows it.")
    for verb in (listed, gone):
        verb.add_argument("--of", metavar="PRINCIPAL", help="Those of this person or program: key:ann.")
        verb.add_argument("--at", metavar="UPSTREAM", help="Those at this one: tools/docs, agents/far, or its name.")
        as_json(verb)
    _with_data_folder(connections)


def _audit(top: Parser) -> None:
    audit = top.command("audit", "Read, verify and export the audit log.")
    tail = audit.command("tail", "Show the newest entries, and follow what comes.", "audit:tail")
    tail.add_argument("-n", dest="limit", type=count, default=20, metavar="N", help="So many first. Default: 20.")
    tail.add_argument("--follow", action="store_true", help="Go on until Ctrl-C.")
    search = audit.command("search", "Find entries, the newest first.", "audit:search")
    search.add_argument("--limit", type=count, default=50, metavar="N", help="At most so many. Default: 50.")
    search.add_argument("--before", metavar="INDEX", help="Only entries before this one.")
    search.add_argument("--since", metavar="TIME", help="Only entries from then on, as 2026-11-21T08:00:00Z.")
    search.add_argument("--until", metavar="TIME", help="Only entries from before then.")
    for verb in (tail, search):
        verb.add_argument("--actor", metavar="ID", help="Who asked, or on whose behalf: key:ann, agent:echo.")
        verb.add_argument("--client", metavar="ID", help="With which OAuth client they came.")
        verb.add_argument("--action", metavar="VERB", help="What was asked for: SendMessage, tools/call, AddKey.")
        verb.add_argument("--object", metavar="ID", help="On what: an agent's id, SERVER/TOOL, gateway.")
        verb.add_argument("--outcome", metavar="WORD", help="How it ended: ok, COMPLETED, FAILED, NOT_FOUND.")
        verb.add_argument("--effect", metavar="VERDICT", help="The decision: PASS, FLAG, BLOCK, ESCALATE, HALT.")
        verb.add_argument("--rule", metavar="NAME", help="By which rule.")
        verb.add_argument("--task", metavar="ID", help="About this task.")
        verb.add_argument("--request", metavar="ID", help="Of this request.")
        verb.add_argument("--correlation", metavar="ID", help="What came of this request, however far.")
    one = audit.command("show", "Show an entry, or all entries of a request, in full.", "audit:show_entry")
    one.add_argument("id", metavar="ID", help="An entry's index or a request's id, as the lists show them.")
    erase = audit.command("erase", "Forget who somebody in the log was; the entries stay.", "audit:erase")
    erase.add_argument("principal", metavar="ID", help="As the log shows it: key:ann, oauth:ISSUER#NAME.")
    audit.command("rotate-key", "Sign the log with new keys from now on.", "audit:rotate")
    verify = audit.command("verify", "Prove that the log is as it was written, without a gateway.", "auditfile:verify")
    verify.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="A database, an export, a folder of segments or a proof file.",
    )
    verify.add_argument("--since", type=Path, metavar="FILE", help="Checkpoints that were seen before.")
    prove = audit.command("prove", "Write a file that proves one entry to anybody.", "auditfile:prove")
    prove.add_argument("index", type=int, metavar="INDEX", help="The entry.")
    prove.add_argument("--out", type=Path, metavar="FILE", help="Where to. Default: entry-INDEX.tlog-proof here.")
    export = audit.command("export", "Write the log to standard output, for others to keep.", "auditfile:export")
    export.add_argument(
        "--format",
        choices=EXPORTS,
        default="jsonl",
        metavar="NAME",
        help="One of " + ", ".join(EXPORTS) + ". Default: jsonl, which can be verified.",
    )
    export.add_argument("--segments", type=Path, metavar="DIR", help="Write the closed segments to a folder instead.")
    export.add_argument("--after", type=int, metavar="INDEX", help="Only entries after this one; not for jsonl.")
    for verb in (prove, export):
        verb.add_argument("--file", type=Path, metavar="FILE", help="The database. Default: DATA/gateway.db.")
    for verb in (verify, prove):
        verb.add_argument("--keys", type=Path, metavar="FILE", help="Keys or a policy. Default: DATA/audit/keys.")
    for verb in (tail, search, one, verify):
        as_json(verb)
    _with_data_folder(audit)


def _vault(top: Parser) -> None:
    vault = top.command("vault", "Look after the key that seals others' authorizations.")
    as_json(vault.command("rotate-key", "Seal everything that is kept with a new key.", "vault:rotate"))
    _with_data_folder(vault)


def _replay(top: Parser) -> None:
    replay = top.command("replay", "Show a task as it was at any moment, from its events.", "replay:replay")
    replay.add_argument("id", metavar="TASK", help="The task's id.")
    replay.add_argument("--at", metavar="TIME", help="At this moment, as 2026-11-21T08:00:00Z. Default: now.")
    replay.add_argument("--event", type=int, metavar="N", help="After its event number N.")
    data_folder(replay)
    as_json(replay)


def _with_data_folder(noun: Parser) -> None:
    for verb in noun.subcommands.values():
        data_folder(verb)


# In the order of --help.
COMMANDS = (
    *(_serve, _token, _send, _tasks, _agents, _cards, _keys, _tools, _connect, _clients),
    *(_policy, _approvals, _compliance, _freezing, _push, _users, _grants, _connections, _audit, _vault, _replay),
)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of one command. Exits as argparse does when the words are wrong."""
    parser = program()
    if not arguments:
        parser.print_help()
        parser.exit(2)
    options, rest = parser.parse_known_args(arguments)
    if rest:
        # argparse takes TEXT in one piece; words after an option (`send echo --task 1 yes`) belong to it too.
        literal = rest[0] == "--"
        words = rest[1:] if literal else rest
        if not hasattr(options, "text") or (
            not literal and any(word.startswith("-") and word != "-" for word in words)
        ):
            options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
        options.text += words
    return options
