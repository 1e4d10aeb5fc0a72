"""The service's template deployed beside the stack that it stands on, and a task as its definition has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from receipt_actors.sandbox.app_store import SimulatedAppStore
from tests.stores.apple.notifications.posts import Posted, transaction_payload
from tests.stores.apple.notifications.servers import Client
from tests.system.processes import Program

from .conftest import SERVICE_TEMPLATE, RecordingServer, Stack, create_stack
from .intrinsics import SERVICE, Resolved

QUICK = "tests.system.quick_program"  #: what a task runs here, to hear of it every second
_NOTIFICATIONS = "Apple's notifications are taken at http://127.0.0.1:"


@dataclass(frozen=True)
class Deployed:
    service: Stack
    template: Resolved
    parameters: Mapping[str, object]

    def task(self, name: str = "TaskDefinition") -> Mapping[str, Any]:
        properties = self.template.resources("AWS::ECS::TaskDefinition")[name]
        with self.service.client("ecs") as ecs:
            registered = ecs.register_task_definition(**as_the_api_spells(properties))
        definition: Mapping[str, Any] = registered["taskDefinition"]
        return definition


def deploy_service(
    server: RecordingServer, receipts: Stack, parameters: Mapping[str, object], exports: Mapping[str, str]
) -> Deployed:
    with receipts.client("ec2") as ec2:
        vpc_id = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc_id, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"] for number in (1, 2)
        ]
    network = {"VpcId": vpc_id, "SubnetIds": ",".join(subnets), **_load_balancer(receipts, vpc_id, subnets)}
    parameters = {**parameters, **network}
    service = create_stack(server, "receipts-service", SERVICE_TEMPLATE, parameters)
    names = {
        **service.ids,
        "Cluster": service.outputs["ClusterName"],
        "ExecutionRole.Arn": service.outputs["ExecutionRoleArn"],
        "Service.Name": service.outputs["ServiceName"],
        "SecurityGroup.GroupId": service.outputs["SecurityGroupId"],
    }
    template = Resolved(
        SERVICE, {**parameters, "SubnetIds": subnets}, stack_name="receipts-service", names=names, exports=exports
    )
    return Deployed(service, template, parameters)


def _load_balancer(stack: Stack, vpc_id: str, subnets: Sequence[str]) -> dict[str, object]:
    """Make one as the manual says to; return the parameters that name it."""
    with stack.client("ec2") as ec2, stack.client("elbv2") as balancing:
        group_id = ec2.create_security_group(GroupName="balancer", Description="HTTPS", VpcId=vpc_id)["GroupId"]
        (balancer,) = balancing.create_load_balancer(
            Name="front", Type="application", Subnets=subnets, SecurityGroups=[group_id]
        )["LoadBalancers"]
        (targets,) = balancing.create_target_group(
            Name="refunds", Protocol="HTTP", Port=8430, VpcId=vpc_id, TargetType="ip", HealthCheckPath="/healthz"
        )["TargetGroups"]
        balancing.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"],
            Protocol="HTTP",
            Port=80,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": targets["TargetGroupArn"]}],
        )
    return {
        "NotificationsTargetGroupArn": targets["TargetGroupArn"],
        "LoadBalancerArn": balancer["LoadBalancerArn"],
        "LoadBalancerSecurityGroupId": group_id,
    }


def as_the_api_spells(value: Any) -> Any:
    if isinstance(value, dict):
        return {f"{key[0].lower()}{key[1:]}": as_the_api_spells(inner) for key, inner in value.items()}
    return [as_the_api_spells(inner) for inner in value] if isinstance(value, list) else value


def environment_of(container: Mapping[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["environment"]}


def surroundings(stack: Stack, user: str, store: SimulatedAppStore) -> dict[str, str]:
    return {
        "RECEIPT_ACTORS_RECEIVE_WAIT_SECONDS": "1",
        "AWS_ENDPOINT_URL": stack.url,
        "AWS_ACCESS_KEY_ID": user,
        "AWS_SECRET_ACCESS_KEY": "testing",
        "RECEIPT_ACTORS_APP_STORE_URL": store.url,
    }


def post_refunds(program: Program, transaction_id: str) -> list[int]:
    """Post to what takes notifications, and return the statuses: of the refund of what was claimed, and of refund and
    reversal of another purchase, which nobody has claimed."""
    program.wait_for_log(_NOTIFICATIONS)
    apple = Client(int(program.stderr.partition(_NOTIFICATIONS)[2].partition("/")[0]))
    posts = [
        Posted("REFUND", transaction_payload(transaction_id)),
        Posted("REFUND", transaction_payload("unclaimed")),
        Posted("REFUND_REVERSED", transaction_payload("unclaimed")),
    ]
    return [apple.post(posted.body) for posted in posts]
