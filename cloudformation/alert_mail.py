"""Turns alerts of the alerts queue into a mail by way of SNS. The template carries this file; a test compares them."""

import json
import os

import boto3

URGENT = ["storm", "configuration", "outage", "abandoned", "dead_letters", "crash", "unknown_answer"]
URGENT += ["node_lost", "restart", "stepped_down"]
MAX_SUBJECT = 99  # characters; SNS takes fewer than 100
MAX_COUNT = 10**12  # of one alert; the sum is written in digits
MAX_MESSAGE = 200_000  # bytes; SNS takes 256 KiB
sns = boto3.client("sns")


def handler(event, context):
    """Mail what a batch of messages says, the most urgent first."""
    alerts = sorted((read(record["body"]) for record in event["Records"]), key=rank)
    sns.publish(TopicArn=os.environ["TOPIC_ARN"], Subject=subject(alerts), Message=message(alerts))


def read(body):
    """Return an alert, whatever the body is: one that can't be read must not hold up the others."""
    try:
        alert = json.loads(body)
        if abs(int(alert.get("count", 1))) > MAX_COUNT:
            raise ValueError
        return {**alert, "kind": str(alert["kind"])}
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
        return {"kind": "unreadable", "summary": str(body)[:500]}


def rank(alert):
    """Order by urgency; good news comes last, and what nobody knows just before."""
    kind = alert["kind"]
    return URGENT.index(kind) if kind in URGENT else len(URGENT) + (kind == "recovered")


def subject(alerts):
    """Return one line of ASCII: which queue, and how many of which kind."""
    counts = {}
    for alert in alerts:
        counts[alert["kind"]] = counts.get(alert["kind"], 0) + int(alert.get("count", 1))
    kinds = ", ".join(f"{kind} x {count}" for kind, count in counts.items())
    line = plain(f"{alerts[0].get('source_queue', 'receipt_actors')}: {kinds}", MAX_SUBJECT)
    return line.encode("ascii", "replace").decode().strip()


def message(alerts):
    """Return the mail's text, of bounded size."""
    parts = []
    for number, alert in enumerate(alerts):
        part = describe(alert)
        if sum(map(len, parts)) + len(part) > MAX_MESSAGE // 4:
            parts.append(f"... and {len(alerts) - number} alerts more.")
            break
        parts.append(part)
    return "\n\n".join(parts)


def describe(alert):
    """Return what an alert says, and where to read what to do."""
    kind, runbook = alert["kind"], os.environ.get("RUNBOOK_URL")
    section = f"{runbook}#alert-{kind.replace('_', '-')}" if runbook else f'"{kind}" in doc/runbook.rst'
    story = alert.get("story")
    lines = [
        f"{kind} x {alert.get('count', 1)}: {alert.get('summary')}",
        f"  when:    {alert.get('first_at')} to {alert.get('last_at')}",
        f"  where:   {alert.get('host')}, {alert.get('process')}, queue {alert.get('source_queue')}",
        f"  version: {alert.get('software_version')}",
        *(f"  | {line}" for line in (story if isinstance(story, list) else [])),
        f"  runbook: {section}",
    ]
    return "\n".join(plain(line, 500) for line in lines[:60])


def plain(text, characters):
    """Return one line of no more characters than that, all of which SNS takes."""
    return "".join(each if each.isprintable() else " " for each in text[:characters])
