"""SQS and DynamoDB by boto3, behind the ports ``Queues``, ``Ledger``, ``Notifications`` and ``RoleTable``.

Region, credentials and endpoints (``AWS_ENDPOINT_URL``) are found where boto3 finds them; pass a ``boto3.Session`` to
decide otherwise. boto3's own retries are off: one policy decides, and it is not here.
"""

from __future__ import annotations

from receipt_actors.aws.calls import AwsCalls
from receipt_actors.aws.ledger import AwsLedger
from receipt_actors.aws.notifications import AwsNotifications
from receipt_actors.aws.queues import AwsQueues
from receipt_actors.aws.roles import AwsRoles

__all__ = ["AwsCalls", "AwsLedger", "AwsNotifications", "AwsQueues", "AwsRoles"]
