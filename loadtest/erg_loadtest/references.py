"""Gives prepared requests what their answers are checked against: golden outputs, or each one's own first answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import grpc.aio

from erg_loadtest.answers import CheckKind, CheckRule
from erg_loadtest.client import InferClient, describe_error
from erg_loadtest.errors import PlanError, ServerError
from erg_loadtest.payloads import Payload


async def with_references(rule: CheckRule, payloads: Sequence[Payload], client: InferClient) -> tuple[Payload, ...]:
    """The same requests with their references.

    First answers are asked for one after the other, so that each is that of a batch of its own. Raises PlanError when
    golden outputs are missing, ServerError when a first answer is an error.
    """
    if rule.kind is not CheckKind.GOLDEN:
        return tuple([await _answered(rule, index, payload, client) for index, payload in enumerate(payloads)])
    if any(payload.expected is None for payload in payloads):
        raise PlanError(
            "--check golden needs expected outputs beside the inputs: arrays named expected.OUTPUT in the .npz, or "
            "'validation_data' in the JSON; without them use --check first"
        )
    return tuple(payloads)


async def _answered(rule: CheckRule, index: int, payload: Payload, client: InferClient) -> Payload:
    try:
        answer: bytes = await client.start(payload.body)
        return replace(payload, expected=rule.reference(answer))
    except grpc.aio.AioRpcError as error:
        raise ServerError(f"the first answer to prepared request {index}: {describe_error(error)}") from None
    except ValueError as error:
        raise ServerError(f"the first answer to prepared request {index}: {error}") from None
