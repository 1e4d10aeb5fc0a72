"""Simulated SQS, DynamoDB and App Store for load: correct, and so cheap that they are not what is measured.

Any client of AWS can speak to them (``AWS_ENDPOINT_URL``); signatures are not checked.
"""
