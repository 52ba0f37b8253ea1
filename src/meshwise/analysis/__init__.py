"""Pure functions from archive tables to findings; no input or output.

Read in this order: `trial` (one number per trial), `grid` (trials as cells x blocks), `contrast` and
`interval` (differences within a block, intervals over blocks), `increment`, `compare`, `interaction` (which
differences), `floor`, `verdict`, `sentence` (what may be said of them), `variance`, `checks`, `findings` (all
of it).
"""
