"""The events that programs tell, each with the id by which the journal's catalog explains it.

Ids are made once with `systemd-id128 new` and never changed: people match on MESSAGE_ID=. The
explanations are in units/agentorch.catalog; a test compares.
"""

from __future__ import annotations

from enum import StrEnum


class Message(StrEnum):
    """An event's MESSAGE_ID (systemd.journal-fields(7))."""

    SUBMITTED = "36077faf88694ba0a8dd98769630d342"
    REFUSED = "a1f5f571180d46a7a1c00e3623785c28"
    CLAIMED = "5ce65b60ab1642498e398e794c0ff729"
    STARTED = "1f060e2a92044d73aa2320e81c086b4d"
    ADOPTED = "6a106345349549e4a07c7a5cd0766b83"
    OUTPUT = "dc3b0bb0c3114c33ac23d273496aa7ed"
    ENDED = "00021154f918439e873e065416f0f77f"
    LOST = "b346f0cd7f8a4a869f2b51b9b2635006"
    GIVEN_BACK = "cb16abf1f5014fd1ae812f5a3e7ff902"
    RECLAIMED = "c5bb9eaaceab4159b95cbf6f5e1171bf"
    DECIDED = "0d3fdf62905c4b8a93529345f19ad1f9"
    FINISHED = "d39cd2120edb46549a75c36ca8e49b44"
    WAITING = "031a2fc21c054d3496cccf4b3b03ed1f"
    READY = "e22c5f5e59a14300bf9a0dcc1e4125a0"
    LEFT = "89cc942f518449abac1b98b6703e341c"
    BROKER_CALLED = "1d0b4639c6cf4ad4a4a5e1ead68f41d1"
    BROKER_REFUSED = "b4c71097adc34eb29f1f079e2a2b841b"
    ANNOUNCED = "8358180e7c114bc8b78022a96bfe4134"
    UNDELIVERED = "a3492d823c3f49728d693778306d0877"
    COLLECTED = "da56b8f986594f45a3d995c350c863a6"
    ACCESS = "3f932f2403d1480aac4be6d20be54034"
    LEFT_OUT = "f73ab75aabdf4572978c17da2502a938"
    DROPPED = "d2b9ecd122fb4ca59cf10222656ac985"
    MISCONFIGURED = "84374482fb78431eabf1da0b4cac71ae"
    PARKED = "02bf4d15760f4ec6b6935587a4bf02ff"
    WOKEN = "c9bbe6b1498d477fbbfe8a847fd69c68"
    HELD = "a13212f7954d4d2ab18428b12852acf6"
    BUDGET_NEAR = "530c296e638e447b9dfd56ef9194acc4"
    PINNED = "52a58231ae6843239d5407209245effd"
    ENTERED = "3acf8e35c55e4eaca5059325d10bf4cc"
    TOLD = "a854689cf8ce4223a7fbf6814e80275a"
    UNTOLD = "ee1e5f5c7c7b487aa832782d7534ec5e"
    EXPIRED = "fc5b265bfc664a418ccab887070ebe48"


# What comes by the hundred while all is well: the priority of these stays that of their level.
ROUTINE = frozenset({Message.OUTPUT, Message.BROKER_CALLED, Message.ACCESS})
