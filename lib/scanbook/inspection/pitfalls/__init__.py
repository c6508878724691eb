"""What a mistake is worth: on a study's own images, each mistake of published studies against its honest twin.

Every comparison makes one mistake, on the same test images, with heads on the features of a frozen backbone.
"""

from scanbook.inspection.pitfalls.measuring import Row
from scanbook.inspection.pitfalls.subject import Subject, prepare, with_features
