"""Cards: the counts that a dataset claims, and the dataset card in the format of Hugging Face."""

from scanbook.data.cards.card import dataset_card, licence, of_study, tags
from scanbook.data.cards.claims import claimed_splits, claims, comparison_note
