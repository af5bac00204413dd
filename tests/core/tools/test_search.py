"""Search among 300 tools: what somebody asks for in their own words is among the first three."""

from __future__ import annotations

from gateway.core.ranking import words
from gateway.core.tools.search import index as made

# Service, the thing it keeps, and what else people call it. Ten operations of each make 300 tools.
SERVICES = """
github issue bug report|gitlab pipeline build job|jira ticket task|slack message chat post|gmail email mail
calendar event meeting appointment|drive file document|notion page note|trello card board item
stripe invoice bill|paypal payment money transfer|salesforce lead prospect customer
hubspot contact person address|zendesk request support case|shopify order purchase
weather forecast temperature rain|maps route directions way|spotify playlist songs music|youtube video clip
mastodon toot status|postgres table rows database|s3 bucket storage object|docker container image
kubernetes pod deployment|sentry error exception crash|grafana dashboard chart metrics
pagerduty incident alert outage|linkedin position vacancy hiring|airtable record spreadsheet row
zoom recording call
""".replace("\n", "|").strip("|").split("|")  # fmt: skip
OPERATIONS = {
    "list": "Lists all {0}s ({1}) in {2}, newest first.",
    "get": "Shows one {0} ({1}) of {2} with all its details.",
    "create": "Creates a new {0} ({1}) in {2}.",
    "update": "Changes an existing {0} ({1}) in {2}.",
    "delete": "Deletes a {0} ({1}) from {2} for good.",
    "search": "Searches {2} for {0}s ({1}) that contain some words.",
    "export": "Exports {0}s ({1}) of {2} as a CSV file to download.",
    "share": "Shares a {0} ({1}) of {2} with another person.",
    "comment_on": "Adds a comment to a {0} ({1}) in {2}.",
    "archive": "Archives a {0} ({1}) of {2}, so that it is kept out of sight.",
}


def town() -> dict[str, dict[str, object]]:
    tools: dict[str, dict[str, object]] = {}
    for line in SERVICES:
        service, thing, *others = line.split()
        for verb, text in OPERATIONS.items():
            name = f"{service}__{verb}_{thing}"
            tools[name] = {"name": name, "description": text.format(thing, ", ".join(others) or thing, service)}
    return tools


QUERIES = {
    "open a new bug on github": "github__create_issue",
    "which issues are there on github": "github__list_issue",
    "remove a github issue": "github__delete_issue",
    "leave a comment on a jira ticket": "jira__comment_on_ticket",
    "edit a ticket in jira": "jira__update_ticket",
    "search slack for messages about the launch": "slack__search_message",
    "delete my slack message": "slack__delete_message",
    "find emails that mention the budget": "gmail__search_email",
    "archive an email": "gmail__archive_email",
    "show one mail with all details": "gmail__get_email",
    "create a meeting in my calendar": "calendar__create_event",
    "change the appointment": "calendar__update_event",
    "list calendar events": "calendar__list_event",
    "share a drive document with Ada": "drive__share_file",
    "search drive for a contract": "drive__search_file",
    "export notion pages to csv": "notion__export_page",
    "write a new note in notion": "notion__create_page",
    "archive the trello card": "trello__archive_card",
    "create an invoice for a customer": "stripe__create_invoice",
    "list all bills in stripe": "stripe__list_invoice",
    "delete invoice": "stripe__delete_invoice",
    "show a paypal payment": "paypal__get_payment",
    "export payments as csv": "paypal__export_payment",
    "new lead in salesforce": "salesforce__create_lead",
    "search for a prospect": "salesforce__search_lead",
    "update a contact in hubspot": "hubspot__update_contact",
    "share a contact": "hubspot__share_contact",
    "comment on a support request": "zendesk__comment_on_request",
    "list zendesk requests": "zendesk__list_request",
    "export shopify orders": "shopify__export_order",
    "details of one order": "shopify__get_order",
    "get the weather forecast": "weather__get_forecast",
    "will there be rain, show the forecast": "weather__get_forecast",
    "show directions on maps": "maps__get_route",
    "create a spotify playlist": "spotify__create_playlist",
    "delete a playlist of songs": "spotify__delete_playlist",
    "search youtube videos": "youtube__search_video",
    "comment on a video": "youtube__comment_on_video",
    "list the tables in postgres": "postgres__list_table",
    "create a database table": "postgres__create_table",
    "delete a bucket in s3": "s3__delete_bucket",
    "list running docker containers": "docker__list_container",
    "show a kubernetes pod": "kubernetes__get_pod",
    "search sentry for exceptions": "sentry__search_error",
    "share a grafana dashboard": "grafana__share_dashboard",
    "create an incident for the outage": "pagerduty__create_incident",
    "archive old incidents": "pagerduty__archive_incident",
    "publish a new vacancy on linkedin": "linkedin__create_position",
    "update an airtable record": "airtable__update_record",
    "download zoom recordings as csv": "zoom__export_recording",
}


def test_what_is_asked_for_in_ones_own_words_is_among_the_first_three() -> None:
    tools = town()
    index = made(tools.items())
    assert (len(tools), len(QUERIES)) == (300, 50)
    missed = {query: index.find(query, 3) for query, name in QUERIES.items() if name not in index.find(query, 3)}
    assert len(missed) <= 5, missed


def test_nothing_is_found_for_words_that_nobody_uses() -> None:
    assert made(town().items()).find("xylophone qwerty", 5) == []
    assert made([]).find("anything", 5) == []


def test_names_are_taken_apart_as_people_read_them() -> None:
    assert words("getHTTPResponse_code2 für Leser") == ["get", "http", "respons", "cod", "2", "für", "leser"]
