"""For those who write notebooks and studies: the contract of a notebook, its linter, and scaffolds that keep it."""
