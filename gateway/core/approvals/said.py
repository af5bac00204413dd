"""A message as an approval has it, and the message that may be sent once it is released."""

from __future__ import annotations

from dataclasses import replace

from gateway.model.approval import Approval
from gateway.model.call import SendMessage
from gateway.model.message import Message
from gateway.model.tool import Tree


def arguments(call: SendMessage) -> Tree:
    """All that its agent would get."""
    return {
        "message": call.message.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "metadata": call.metadata,
        "extensions": list(call.extensions),
        "acceptedOutputModes": list(call.accepted_output_modes),
    }


def message_call(approval: Approval) -> SendMessage:
    """The other way round, as it was released."""
    said = approval.arguments
    return SendMessage(
        approval.agent,
        Message.model_validate({"messageId": approval.id, **said["message"]}),
        digest=b"",
        accepted_output_modes=tuple(said["acceptedOutputModes"]),
        metadata=said["metadata"],
        extensions=tuple(said["extensions"]),
    )


def unsent(call: SendMessage) -> Tree:
    """What an agent asks another one, in which every message has an id of its own whatever it says."""
    said = arguments(call)
    del said["message"]["messageId"]
    return said


def edited_message(call: SendMessage, approval: Approval) -> SendMessage:
    """What an agent asks, as it was released."""
    if approval.edited is None:
        return call
    tree = {**approval.edited["message"], "messageId": call.message.message_id}
    return replace(call, message=Message.model_validate(tree))
