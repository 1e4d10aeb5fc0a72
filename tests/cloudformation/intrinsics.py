"""What a template says once its parameters are known: CloudFormation's functions and conditions, carried out here.

For what moto does not deploy, and for parameters that would each take a deployment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .conftest import ACCOUNT, REGION, SERVICE_TEMPLATE, SOURCE_TEMPLATE, TEMPLATE, Stack, load

_NOTHING = object()
_VARIABLE = re.compile(r"\$\{([^}!]+)\}")
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::NoValue": _NOTHING,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::URLSuffix": "amazonaws.com",
}


class Resolved:
    """A template with these parameters. ``names`` has what ``Ref`` or an attribute of a resource is; else its name."""

    def __init__(
        self,
        template: Mapping[str, Any],
        parameters: Mapping[str, object],
        *,
        stack_name: str,
        names: Mapping[str, str] | None = None,
        exports: Mapping[str, str] | None = None,
    ) -> None:
        self._template = template
        defaults = {name: each["Default"] for name, each in template["Parameters"].items() if "Default" in each}
        unknown = parameters.keys() - template["Parameters"].keys()
        missing = template["Parameters"].keys() - defaults.keys() - parameters.keys()
        assert not unknown, f"no parameters: {sorted(unknown)}"
        assert not missing, f"no values: {sorted(missing)}"
        self._known = {**PSEUDO, "AWS::StackName": stack_name, **defaults, **parameters}
        self._names = names or {}
        self._exports = exports or {}

    def resources(self, kind: str) -> dict[str, dict[str, Any]]:
        return {
            name: self.value(resource["Properties"])
            for name, resource in self._template["Resources"].items()
            if resource["Type"] == kind and ("Condition" not in resource or self.holds(resource["Condition"]))
        }

    def faults(self) -> list[str]:
        return [
            assertion["AssertDescription"]
            for rule in self._template.get("Rules", {}).values()
            if "RuleCondition" not in rule or self.value(rule["RuleCondition"])
            for assertion in rule["Assertions"]
            if not self.value(assertion["Assert"])
        ]

    def holds(self, condition: str) -> bool:
        return bool(self.value(self._template["Conditions"][condition]))

    def exports(self) -> dict[str, str]:
        return {
            self.value(output["Export"]["Name"]): self.value(output["Value"])
            for output in self._template["Outputs"].values()
            if "Export" in output
        }

    def value(self, node: Any) -> Any:
        if isinstance(node, dict) and len(node) == 1:
            ((name, argument),) = node.items()
            if name == "Ref" or name.startswith("Fn::") or (name == "Condition" and isinstance(argument, str)):
                return self._call(name, argument)
        if isinstance(node, dict):
            values = {str(key): self.value(inner) for key, inner in node.items()}
            return {key: value for key, value in values.items() if value is not _NOTHING}
        if isinstance(node, list):
            return [value for value in map(self.value, node) if value is not _NOTHING]
        return node

    def _call(self, name: str, argument: Any) -> Any:
        match name, argument:
            case "Ref", str():
                return self._named(argument)
            case "Condition", str():
                return self.holds(argument)
            case "Fn::GetAtt", [resource, attribute]:
                return self._named(f"{resource}.{attribute}")
            case "Fn::Sub", str():
                return self._filled(argument, {})
            case "Fn::Sub", [text, variables]:
                return self._filled(text, self.value(variables))
            case "Fn::If", [condition, then, otherwise]:
                return self.value(then if self.holds(condition) else otherwise)
            case "Fn::ImportValue", _:
                return self._exports[self.value(argument)]
            case "Fn::FindInMap", [mapping, key, second]:
                return self._template["Mappings"][mapping][self.value(key)][second]
            case "Fn::Select", [index, values]:
                return self.value(values)[int(index)]
            case "Fn::Split", [separator, text]:
                return self.value(text).split(separator)
            case "Fn::Equals", [one, other]:
                return str(self.value(one)) == str(self.value(other))
            case "Fn::Not", [condition]:
                return not self.value(condition)
            case "Fn::And", conditions:
                return all(map(self.value, conditions))
            case "Fn::Or", conditions:
                return any(map(self.value, conditions))
            case "Fn::Contains", [values, wanted]:
                return str(self.value(wanted)) in values
        raise NotImplementedError(f"{name} of {argument!r}")

    def _named(self, name: str) -> Any:
        if name in self._known:
            return self._known[name]
        resource, _, attribute = name.partition(".")
        assert resource in self._template["Resources"], f"{name} is nothing in the template"
        if name in self._names:
            return self._names[name]
        properties = self._template["Resources"][resource]["Properties"]
        given = {"QueueName": "QueueName", "": "TableName"}.get(attribute, "")
        return self.value(properties[given]) if given in properties else name

    def _filled(self, text: str, variables: Mapping[str, Any]) -> str:
        def value_of(match: re.Match[str]) -> str:
            return str(variables[match[1]] if match[1] in variables else self._named(match[1]))

        return _VARIABLE.sub(value_of, text)


FIRST: Mapping[str, Any] = load(TEMPLATE)
SOURCE: Mapping[str, Any] = load(SOURCE_TEMPLATE)
SERVICE: Mapping[str, Any] = load(SERVICE_TEMPLATE)
REQUIRED: Mapping[str, object] = {
    "Image": "receipt-actors:1",
    "BundleIds": "com.example.game",
    "VpcId": "vpc-1",
    "SubnetIds": ["subnet-1", "subnet-2"],
}
FURTHER = ("Game2SQS", "Game3SQS.fifo", "Game4SQS", "Game5SQS")  # as many as count in scaling


def first(**changes: object) -> Resolved:
    return Resolved(FIRST, changes, stack_name="receipts")


def source(**changes: object) -> Resolved:
    return Resolved(SOURCE, {"SourceQueueName": "game2", **changes}, stack_name="receipts", exports=first().exports())


def service(further: int = 0, **changes: object) -> Resolved:
    if further:
        changes["SourceStacks"] = ",".join(f"game{number}" for number in range(2, 2 + further))
        changes["Sources"] = json.dumps({queue: {} for queue in FURTHER[:further]})
    exports = first().exports() | {f"game{number}-SourceQueueName": queue for number, queue in enumerate(FURTHER, 2)}
    return Resolved(SERVICE, {**REQUIRED, **changes}, stack_name="service", exports=exports)


def resolved(
    stack: Stack,
    parameters: Mapping[str, object],
    *,
    template: Path = TEMPLATE,
    stack_name: str = "receipts",
    exports: Mapping[str, str] | None = None,
) -> Resolved:
    content = load(template)
    named = Resolved(content, parameters, stack_name=stack_name, exports=exports)
    alarms = ("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
    outputs = stack.outputs
    called = {"AlertTopic": "AlertTopicArn", "AlertMail": "AlertMailName"}
    names = {
        **stack.ids,
        **{name: outputs[output] for name, output in called.items() if output in outputs},
        **{f"{each}.Arn": outputs[f"{each}Arn"] for each in content["Resources"] if f"{each}Arn" in outputs},
        **{f"{each}.QueueName": outputs[f"{each}Name"] for each in content["Resources"] if f"{each}Url" in outputs},
        # What moto did not make is called as CloudFormation would.
        **{name: alarm["AlarmName"] for kind in alarms for name, alarm in named.resources(kind).items()},
    }
    return Resolved(content, parameters, stack_name=stack_name, names=names, exports=exports)
