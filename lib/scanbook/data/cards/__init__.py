"""What a dataset claims to hold, and the card that tells others what it holds."""

from scanbook.data.cards.card import dataset_card, licence, of_study, tags
from scanbook.data.cards.claims import claimed_splits, claims, comparable

__all__ = ["claimed_splits", "claims", "comparable", "dataset_card", "licence", "of_study", "tags"]
