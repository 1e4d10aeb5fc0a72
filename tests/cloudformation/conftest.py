"""A moto server that takes down who calls what, and the templates deployed to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import boto3
import pytest
import yaml
from moto.sqs.models import sqs_backends

from tests.system.conftest import programs, pytest_runtest_makereport
from tests.system.worlds import AwsServer

#: What the processes of a failing test have written.
__all__ = ["programs", "pytest_runtest_makereport"]

TEMPLATE = Path(__file__).parents[2] / "cloudformation/receipt-actors.yaml"
SERVICE_TEMPLATE = TEMPLATE.with_name("receipt-actors-service.yaml")
SOURCE_TEMPLATE = TEMPLATE.with_name("receipt-actors-source.yaml")
ACCOUNT = "123456789012"  # moto's
REGION = "eu-west-1"

#: SQS knows no actions for batches: it authorizes them as the single call. A batch of PartiQL of ours only inserts.
_ACTIONS = {
    "BatchExecuteStatement": "PartiQLInsert",
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
    "DeleteMessageBatch": "DeleteMessage",
    "SendMessageBatch": "SendMessage",
}
_INSERT = re.compile('INSERT INTO "(?P<name>[^"]+)"')
_CREDENTIAL = re.compile(r"Credential=(?P<user>[^/]+)/\d+/(?P<region>[^/]+)/(?P<service>[^/]+)/")


class _Loader(yaml.CSafeLoader):
    """Reads the short forms of CloudFormation's functions (``!Sub``) as the long ones (``Fn::Sub``)."""


def _function(loader: yaml.CSafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    match node:
        case yaml.ScalarNode():
            value = loader.construct_scalar(node)
            value = value.split(".", 1) if name == "GetAtt" else value
        case yaml.SequenceNode():
            value = loader.construct_sequence(node, deep=True)
        case _:
            value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _function)


def load(template: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.load(template.read_text(encoding="utf-8"), _Loader)
    return content


def alert_mail_code() -> str:
    code: str = load(TEMPLATE)["Resources"]["AlertMail"]["Properties"]["Code"]["ZipFile"]
    return str(code)


class Permission(NamedTuple):
    action: str
    resource: str


class RecordingServer(AwsServer):
    """Takes down what IAM would have been asked for, and by which user (an access key id)."""

    def __init__(self) -> None:
        self._calls: set[tuple[str, Permission]] = set()
        super().__init__()

    def calls_of(self, user: str) -> set[Permission]:
        return {permission for caller, permission in self._calls.copy() if caller == user}

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        signature = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        if signature is not None:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = BytesIO(body)
            permission = _permission(signature["service"], signature["region"], environ, body)
            self._calls.add((signature["user"], permission))
        return super()._answer(environ, start_response)


def _permission(service: str, region: str, environ: Mapping[str, str], body: bytes) -> Permission:
    target = environ.get("HTTP_X_AMZ_TARGET")
    fields = json.loads(body) if target else dict(parse_qsl(body.decode()))
    operation = target.rpartition(".")[2] if target else fields.get("Action", "?")  # Lambda has paths
    match service, fields:
        case "sqs", {"QueueUrl": url}:
            resource = url.rpartition("/")[2]
        case "sqs", {"QueueName": name}:
            resource = name
        case "sns", {"TopicArn": arn}:
            return Permission(f"sns:{operation}", arn)
        case "dynamodb", {"TableName": name}:
            resource = f"table/{name}"
        case "dynamodb", {"Statements": [{"Statement": statement}, *_]}:
            resource = f"table/{_INSERT.match(statement)['name']}"  # type: ignore[index]
        case _:
            resource = "?"  # what no policy of ours may grant
    return Permission(
        f"{service}:{_ACTIONS.get(operation, operation)}", f"arn:aws:{service}:{region}:{ACCOUNT}:{resource}"
    )


@dataclass(frozen=True)
class Stack:
    session: boto3.Session
    url: str  #: of the server
    outputs: Mapping[str, str]
    ids: Mapping[str, str]  #: of what was made, by its name in the template

    @property
    def environment(self) -> Mapping[str, str]:
        return dict(line.split("=", 1) for line in self.outputs["Environment"].splitlines())

    @contextmanager
    def client(self, service: str) -> Iterator[Any]:
        client = self.session.client(service, endpoint_url=self.url)  # type: ignore[call-overload]
        yield client
        client.close()

    def switch_functions_off(self) -> list[Mapping[str, Any]]:
        """Have nothing fed to functions, which moto would run in Docker, or try to; return what would have fed them."""
        with self.client("lambda") as functions:
            mappings: list[Mapping[str, Any]] = functions.list_event_source_mappings()["EventSourceMappings"]
            for mapping in mappings:
                functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
        return mappings

    def granted(self, policy_arn: str) -> set[Permission]:
        """Everything that a managed policy grants; it may say nothing but what it grants, and on what."""
        for statement in (statements := self.statements(policy_arn)):
            assert statement.keys() == {"Sid", "Effect", "Action", "Resource"}
            assert statement["Effect"] == "Allow"
        return {
            Permission(action, resource)
            for statement in statements
            for action in statement["Action"]
            for resource in _as_list(statement["Resource"])
        }

    def statements(self, policy_arn: str) -> list[dict[str, Any]]:
        with self.client("iam") as iam:
            version = iam.get_policy(PolicyArn=policy_arn)["Policy"]["DefaultVersionId"]
            document = iam.get_policy_version(PolicyArn=policy_arn, VersionId=version)["PolicyVersion"]["Document"]
        statements: list[dict[str, Any]] = document["Statement"]
        return statements

    def number_of_messages(self, queue: str) -> int:
        """Count all: those that can be received now, and those that are hidden because somebody has them."""
        return len(sqs_backends[ACCOUNT][REGION].queues[queue]._messages)  # at a thousandth of what asking moto costs

    def queue_attributes(self, queue: str) -> Mapping[str, str]:
        with self.client("sqs") as sqs:
            url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
            attributes: Mapping[str, str] = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            return attributes


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    server = RecordingServer()
    yield server
    server.close()


def create_stack(server: RecordingServer, name: str, template: Path, parameters: Mapping[str, object]) -> Stack:
    session = boto3.Session("deployer", "testing", region_name=REGION)
    with Stack(session, server.url, {}, {}).client("cloudformation") as cloudformation:
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=template.read_text(encoding="utf-8"),
            Parameters=[{"ParameterKey": key, "ParameterValue": str(value)} for key, value in parameters.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        (described,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    assert described["StackStatus"] == "CREATE_COMPLETE"
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    # What moto does not make has no name there.
    ids = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources if "LogicalResourceId" in each}
    return Stack(session, server.url, outputs, ids)
