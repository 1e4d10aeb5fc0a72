"""Settings that were removed, and what does their work now: a file, a variable or a flag that has one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: What a person is told who gives one.
REMOVED: Mapping[str, str] = MappingProxyType(
    {
        "alert_dead_letters": "more than 10 dead letters within a minute are an alert",
        "alert_outage_seconds": "an outage of 60 s is an alert",
        "app_account_token_namespace": "give the namespace as app_account_token_rule",
        "app_store_client": "transport says how Apple is asked: auto (libcurl where it can) or threads (was: requests)",
        "app_store_attempts": "Apple is asked up to 4 times for a delivery, then the message comes back later",
        **dict.fromkeys(
            (
                "app_store_production_url",
                "app_store_sandbox_url",
                "server_api_production_url",
                "server_api_sandbox_url",
            ),
            "give the root of what stands in for Apple as app_store_url",
        ),
        "app_store_connect_timeout_seconds": "connecting to Apple may take 0.3 of app_store_read_timeout_seconds",
        "aws_client": "transport says how AWS is called, and Apple asked: auto or threads",
        "batch_requests": "a batcher has up to 4 requests under way",
        "emf_interval_seconds": "metrics are written once a minute",
        "emf_namespace": "the namespace is ReceiptActors; emf_dimensions tell deployments apart",
        "ledger_attempts": "the ledger is asked up to 5 times for a claim, then the message comes back later",
        "result_batcher_idle_seconds": "a result batcher ends after 60 s without results",
        "node_name": "a node is called as its machine is, or as the variable HOSTNAME says",
        "role_group": "nodes with the same source_queue are a group; a role_table of its own keeps others apart",
        "scale_in_protection": "a task protects itself where ECS_AGENT_URI is set; unset that to do without",
        "server_api_key_file": "give the path of the .p8 file as server_api_key",
        "signature_processes": "one process beside each that works verifies signatures",
        "traces_sample_ratio": "set OTEL_TRACES_SAMPLER=parentbased_traceidratio and OTEL_TRACES_SAMPLER_ARG",
    }
)
