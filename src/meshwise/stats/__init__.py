"""Pure numbers: quantiles, intervals, multiplicity, noise floor, verdict, resampling. No table, no word."""
