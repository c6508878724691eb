"""What a dataset claims to hold, and the card that tells others what it holds."""

from scanbook.cards.card import dataset_card, licence, of_study, tags
from scanbook.cards.claims import claimed_parts, claims, comparable

__all__ = ["claimed_parts", "claims", "comparable", "dataset_card", "licence", "of_study", "tags"]
