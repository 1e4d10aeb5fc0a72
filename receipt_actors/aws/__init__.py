"""SQS and DynamoDB by boto3, behind the ports ``Queues``, ``Ledger``, ``Notifications`` and ``RoleTable``.

Region, credentials and endpoints (``AWS_ENDPOINT_URL``) are found where boto3 finds them; pass a ``boto3.Session`` to
decide otherwise. boto3's own retries are off: the actors decide about retries.
"""

from receipt_actors.aws.calls import AwsCalls
from receipt_actors.aws.queues import AwsQueues
from receipt_actors.aws.tables import AwsLedger, AwsNotifications, AwsRoles

__all__ = ["AwsCalls", "AwsLedger", "AwsNotifications", "AwsQueues", "AwsRoles"]
