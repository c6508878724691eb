"""Writes a bundle: a trained network in every format, compared with the network itself before anything is exported."""

from scanbook.export.answers import points_table, record_answers, summarise_answers
from scanbook.export.bundles import (
    describe_input,
    export_plain,
    export_study,
    list_files,
    summarise_formats,
    write_bundle,
)
from scanbook.export.formats import parity_table, quantise, select_fixed
